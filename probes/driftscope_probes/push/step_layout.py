"""How the tensors of a safetensors file fit together, from the header alone.

In: StoredTensors. Out: StepLayout (packed or padded), or PushError naming the tensor that differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from driftscope_probes.push.limits import MAX_SEQUENCES, MAX_TOKENS
from driftscope_probes.push.push_error import PushError
from driftscope_probes.push.safetensors_header import StoredTensor
from driftscope_probes.push.tensor_rules import REQUIRED, RULES

PACKED_OR_PADDED = (
    "give [tokens] tensors with cu_seqlens, or [sequences, longest] tensors with a mask."
)


@dataclass(frozen=True, slots=True)
class StepLayout:
    token_shape: tuple[int, ...]  # (tokens,), or (sequences, longest) where padded
    sequences: int

    @property
    def padded(self) -> bool:
        return len(self.token_shape) == 2


def step_layout(tensors: Mapping[str, StoredTensor]) -> StepLayout:
    for name in REQUIRED:
        if name not in tensors:
            raise PushError(f"there is no {name}.", remedy=f"add {name}: one value per token.")
    token_shape = tensors[REQUIRED[0]].shape
    if len(token_shape) not in (1, 2):
        raise PushError(f"{REQUIRED[0]} has shape {list(token_shape)}.", remedy=PACKED_OR_PADDED)
    layout = StepLayout(token_shape, _sequences(tensors, token_shape))
    for name, most, given in (
        ("tokens", MAX_TOKENS, prod(token_shape)),
        ("sequences", MAX_SEQUENCES, layout.sequences),
    ):
        if given > most:
            raise PushError(
                f"it has {given:,} {name}, accepted are {most:,}.",
                remedy="push each data-parallel rank's share as a file of its own.",
            )
    for tensor in tensors.values():
        _check_shape(tensor, layout)
    return layout


def _sequences(tensors: Mapping[str, StoredTensor], token_shape: tuple[int, ...]) -> int:
    needed, other = ("cu_seqlens", "mask") if len(token_shape) == 1 else ("mask", "cu_seqlens")
    if needed not in tensors:
        raise PushError(
            f"{REQUIRED[0]} has shape {list(token_shape)}, and there is no {needed}.",
            remedy=PACKED_OR_PADDED,
        )
    if len(token_shape) == 1:
        return max(0, tensors["cu_seqlens"].elements - 1)
    if other in tensors:
        raise PushError(
            f"{REQUIRED[0]} is padded, {list(token_shape)}, and there is a {other} as well.",
            remedy=PACKED_OR_PADDED,
        )
    return token_shape[0]


def _check_shape(tensor: StoredTensor, layout: StepLayout) -> None:
    rule = RULES[tensor.name]
    counted: dict[str, tuple[int, ...]] = {
        "token": layout.token_shape,
        "sequence": (layout.sequences,),
        "limit": (layout.sequences + 1,),
    }
    expected = counted[rule.per]
    leading = tensor.shape[: len(expected)]
    if leading != expected or len(tensor.shape) != len(expected) + rule.inner_dimensions:
        names = [*map(str, expected), *("layers", "k")[: rule.inner_dimensions]]
        raise PushError(
            f"{tensor.name} has shape {list(tensor.shape)}; to fit {REQUIRED[0]} it needs "
            f"[{', '.join(names)}].",
            remedy=f"give {tensor.name} one entry per {rule.per}, of the same step.",
        )
