"""A weight laid out once for the matrix product, to be used in many calls.

In: a weight [N, K]. Out: PackedWeight: panels of 32 columns, k after k, in bfloat16 two by two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from driftscope_kernels.cpu.backend import chosen
from driftscope_kernels.reference.linear import segment_bounds


class PackMismatchError(ValueError):
    """A packed weight used for another weight, or for one that has changed."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedWeight:
    """The panels of one weight; as large as the weight, N rounded up to 32."""

    shape: tuple[int, int]  # N, K
    dtype: torch.dtype
    version: int  # the weight's version when it was packed; -1 where torch keeps none
    panels: tuple[Tensor, ...]  # uint8, one per segment of K; empty where nothing is packed

    @property
    def tp_segments(self) -> int:
        return len(self.panels)

    def check(self, weight: Tensor, tp_segments: int) -> None:
        """Raise unless this was packed from the weight as it is now."""
        if self.shape != weight.shape or self.dtype is not weight.dtype:
            raise PackMismatchError(
                f"weight_pack was made from a weight {self.shape} {self.dtype}, the weight given "
                f"is {tuple(weight.shape)} {weight.dtype}; pack it again"
            )
        if self.version != _version(weight):
            raise PackMismatchError(
                "the weight has changed since weight_pack was made; pack it again"
            )
        if self.panels and self.tp_segments != tp_segments:
            raise PackMismatchError(
                f"weight_pack was made for tp_segments={self.tp_segments}, the call asks for "
                f"tp_segments={tp_segments}; pack it with the same"
            )


def pack_weight(weight: Tensor, *, tp_segments: int = 1, isa: str | None = None) -> PackedWeight:
    """Pack [N, K] float32, bfloat16 or float16, any strides. Costs about one copy of the weight.

    A change of the weight in place (an optimiser step) is noticed by torch's version counter, which
    tensors made in inference mode do not have.
    """
    operators, n, k = chosen(isa), weight.shape[0], weight.shape[1]
    bounds = [(0, k)] if tp_segments == 1 else segment_bounds(k, tp_segments)
    plain = weight.detach()
    panels = tuple(
        operators.pack_weight(plain[:, a:b], isa or "") for a, b in bounds if operators is not None
    )
    return PackedWeight((n, k), weight.dtype, _version(weight), panels)


def _version(weight: Tensor) -> int:
    return -1 if weight.is_inference() else weight._version
