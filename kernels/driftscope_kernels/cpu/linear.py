"""The linear op on CPU, and weights packed for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.cpu import portable
from driftscope_kernels.cpu.backend import chosen, contiguous_rows
from driftscope_kernels.options import ROW_BLOCK, TP_SEGMENTS
from driftscope_kernels.reference import linear as reference
from driftscope_kernels.reference.linear import segment_bounds
from driftscope_kernels.registry import DTYPES


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


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    tp_segments: int = 1,
    weight_pack: object = None,
    out_dtype: torch.dtype | None = None,
    initial: Tensor | None = None,
    isa: str | None = None,
) -> Tensor:
    """As `reference.linear.linear`, whose arguments it has.

    `weight_pack` is what `cpu.weight_pack.pack_weight` made of the weight; a pack made by anything
    else is not used. `isa` names the instruction set, one of `cpu.backend.instruction_sets()`;
    None takes the fastest. No choice of either changes a bit.
    """
    dtype = out_dtype or x.dtype
    shape, (n, k) = x.shape, _checked_shape(x, weight, bias, initial, tp_segments, dtype)
    pack = weight_pack if isinstance(weight_pack, PackedWeight) else None
    if pack is not None:
        pack.check(weight, tp_segments)
    rows = x if len(shape) == 2 else x.reshape(shape[:-1].numel(), k)
    start = None if initial is None else initial.reshape(rows.shape[0], n)
    operators = chosen(isa)
    if operators is None:
        y = portable.linear(rows, weight, bias, start, tp_segments, dtype)
    elif tp_segments == 1:
        panels = pack.panels[0] if pack is not None and pack.panels else None
        y = operators.linear(rows, weight, panels, bias, start, dtype, isa or "")
    else:
        y = _segmented(operators, rows, weight, pack, bias, dtype, isa or "")
    return y if len(shape) == 2 else y.reshape(*shape[:-1], n)


def _segmented(
    operators: Any,
    x: Tensor,
    weight: Tensor,
    pack: PackedWeight | None,
    bias: Tensor | None,
    dtype: torch.dtype,
    isa: str,
) -> Tensor:
    bounds = segment_bounds(x.shape[1])
    panels = pack.panels if pack is not None and pack.panels else (None,) * TP_SEGMENTS
    sums = x.new_empty((TP_SEGMENTS, len(x), len(weight)), dtype=torch.float32)
    for i, (a, b) in enumerate(bounds):
        part = (x[:, a:b], weight[:, a:b], panels[i], None, None, torch.float32, isa)
        sums[i] = operators.linear(*part)
    return operators.merge_segments(sums, bias, dtype, isa)  # type: ignore[no-any-return]


def _checked_shape(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    tp_segments: int,
    out_dtype: torch.dtype,
) -> tuple[int, int]:
    """N and K, after checking all that the operators, which read raw memory, rely on."""
    n, k = weight.shape if weight.dim() == 2 else (-1, -1)
    if x.dim() < 1 or x.shape[-1] != k or (bias is not None and bias.shape != (n,)):
        raise ValueError(
            f"linear takes x [..., K], weight [N, K], bias [N]; given {tuple(x.shape)}, "
            f"{tuple(weight.shape)}, {None if bias is None else tuple(bias.shape)}"
        )
    dtype = x.dtype
    if dtype not in DTYPES or weight.dtype is not dtype or out_dtype not in DTYPES:
        raise TypeError(
            f"x {dtype}, weight {weight.dtype}, result {out_dtype}: x and weight have one dtype, "
            "and all are float32, bfloat16 or float16"
        )
    if not (x.is_cpu and weight.is_cpu and (bias is None or bias.is_cpu)):
        raise ValueError("the CPU kernels take tensors on the CPU; move them with .cpu()")
    if tp_segments not in (1, TP_SEGMENTS) or (tp_segments > 1 and initial is not None):
        raise ValueError(
            f"tp_segments = {tp_segments}: 1 and {TP_SEGMENTS} are accepted, and {TP_SEGMENTS} "
            "only without `initial`"
        )
    if initial is not None:
        _check_initial(initial, (*x.shape[:-1], n))
    return n, k


def _check_initial(initial: Tensor, shape: tuple[int, ...]) -> None:
    if initial.dtype != torch.float32 or tuple(initial.shape) != shape or not initial.is_cpu:
        raise ValueError(
            f"initial has to be float32 {shape} on the CPU; given {tuple(initial.shape)} "
            f"{initial.dtype}"
        )


def linear_weight_grad(
    dy: Tensor, x: Tensor, carry: Tensor | None = None, *, isa: str | None = None
) -> Tensor:
    """As `reference.linear_backward.linear_weight_grad`; `isa` as in `cpu.linear.linear`."""
    shape = (dy.shape[1], x.shape[1])
    total = torch.zeros(shape, dtype=torch.float32) if carry is None else carry.clone()
    return add_weight_grad(dy, x, total, isa)


def add_weight_grad(dy: Tensor, x: Tensor, total: Tensor, isa: str | None) -> Tensor:
    """The blocks of rows added to `total` in place, one after another."""
    for start in range(0, len(x), ROW_BLOCK):
        rows = slice(start, start + ROW_BLOCK)
        total += linear(dy[rows].t(), x[rows].t(), out_dtype=torch.float32, isa=isa)
    return with_quiet_nan(total)


def linear_bias_grad(dy: Tensor, carry: Tensor | None = None, *, isa: str | None = None) -> Tensor:
    """As `reference.linear_backward.linear_bias_grad`."""
    operators = chosen(isa)
    if operators is None or dy.numel() == 0:
        return reference.linear_bias_grad(dy, carry)
    start = None if carry is None else carry.contiguous()
    total: Tensor = operators.column_sum.default(contiguous_rows(dy), start, ROW_BLOCK, isa or "")
    return total


def with_quiet_nan(x: Tensor) -> Tensor:
    """Every NaN of a float32 tensor made the quiet one of the contract, in place."""
    nan = x.isnan()
    return x.masked_fill_(nan, float("nan")) if nan.any() else x


def bmm(
    a: Tensor, b: Tensor, *, out_dtype: torch.dtype | None = None, isa: str | None = None
) -> Tensor:
    """As `reference.bmm.bmm`; `isa` as in `cpu.linear.linear`."""
    dtype = out_dtype or a.dtype
    if a.dim() != 3 or b.dim() != 3 or a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1]:
        raise ValueError(
            f"bmm takes a [B, M, K] and b [B, K, N]; given {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if a.dtype not in DTYPES or b.dtype != a.dtype or dtype not in DTYPES:
        raise TypeError(
            f"a {a.dtype}, b {b.dtype}, result {dtype}: a and b have one dtype, and all are "
            "float32, bfloat16 or float16"
        )
    if a.device.type != "cpu" or b.device.type != "cpu":
        raise ValueError("the CPU kernels take tensors on the CPU; move them with .cpu()")
    operators = chosen(isa)
    if operators is not None:
        return operators.bmm(a, b, dtype, isa or "")  # type: ignore[no-any-return]
    out = a.new_empty((len(a), a.shape[1], b.shape[2]), dtype=dtype)
    for i in range(len(a)):
        out[i] = portable.linear(a[i], b[i].transpose(0, 1), None, None, 1, dtype)
    return out
