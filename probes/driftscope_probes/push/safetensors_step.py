"""A safetensors file in the push format → PushedStep, packed or padded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.push.pushed_step import PushedStep, as_mask, pushed_step, response_span
from driftscope_probes.push.rules import (
    MAX_SEQUENCES,
    MAX_TOKENS,
    REQUIRED,
    RULES,
    STORED_AS,
    PushError,
)
from driftscope_probes.push.safetensors_header import StoredTensor, read_header

# A bfloat16 is the upper half of a float32.
MISSING_BITS = np.uint32(16)


def widened(stored: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """`stored` holds F32 or F16 values, or BF16 bits as uint16; any shape."""
    if dtype == "BF16":
        bits = stored.astype(np.uint32)
        bits <<= MISSING_BITS
        return bits.view(np.float32)
    return stored.astype(np.float32, copy=False)


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


def read_safetensors_step(path: Path) -> PushedStep:
    """The whole header is checked before any tensor is read. Peak memory: three times the file."""
    with path.open("rb") as stream:
        header = read_header(stream)
        layout = step_layout(header.tensors)
        tensors = {name: _read(stream, tensor) for name, tensor in header.tensors.items()}
    return pushed_step(_packed(tensors, layout) if layout.padded else tensors, header.metadata)


def _read(stream: BinaryIO, tensor: StoredTensor) -> NDArray[Any]:
    stream.seek(tensor.begin)
    values = np.fromfile(stream, dtype=STORED_AS[tensor.dtype], count=tensor.elements)
    if values.size != tensor.elements:
        raise PushError(
            f"it ends within {tensor.name}: it was shortened while it was read.",
            remedy="send it again when it is complete.",
        )
    shaped = values.reshape(tensor.shape)
    if tensor.name in ("rollout_logprobs", "trainer_logprobs"):
        return widened(shaped, tensor.dtype)
    return shaped


def _packed(tensors: dict[str, NDArray[Any]], layout: StepLayout) -> dict[str, NDArray[Any]]:
    """[sequences, longest, …] → [tokens, …] from each row's first to its last unmasked token."""
    rows, longest = layout.token_shape
    limits = np.arange(rows + 1, dtype=np.int64) * longest
    span = response_span(as_mask(tensors["mask"]).reshape(-1), limits)
    packed = {
        name: tensor.reshape(rows * longest, *tensor.shape[2:])[span.keep]
        if RULES[name].per == "token"
        else tensor
        for name, tensor in tensors.items()
    }
    return {**packed, "cu_seqlens": span.cu_seqlens}
