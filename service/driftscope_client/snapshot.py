"""The tensors of a step, and copies of them that the caller can no longer change."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from driftscope_client.errors import MalformedStep

SCHEMA_VERSION = "1"

Per = Literal["token", "sequence", "limit"]
Holds = Literal["logprob", "number", "integer", "flag", "expert"]

#: In writing order: the same step always gives the same bytes.
TENSORS: Mapping[str, tuple[Per, Holds]] = {
    "rollout_logprobs": ("token", "logprob"),
    "trainer_logprobs": ("token", "logprob"),
    "cu_seqlens": ("limit", "integer"),
    "mask": ("token", "flag"),
    "token_ids": ("token", "integer"),
    "rollout_token_ids": ("token", "integer"),
    "advantages": ("token", "number"),
    "entropy": ("token", "number"),
    "position_ids": ("token", "integer"),
    "turn_ids": ("token", "integer"),
    "behavior_version": ("sequence", "integer"),
    "rank": ("sequence", "integer"),
    "replica": ("sequence", "integer"),
    "cached_tokens": ("sequence", "integer"),
    "prompt_lengths": ("sequence", "integer"),
    "environment": ("sequence", "integer"),
    "routed_experts": ("token", "expert"),
    "trainer_routed_experts": ("token", "expert"),
}
REQUIRED = ("rollout_logprobs", "trainer_logprobs")


#: A Python float is an object of 24 bytes behind a pointer of 8.
BYTES_PER_LISTED_NUMBER = 32


@dataclass(frozen=True, slots=True, eq=False)
class CopiedArray:
    values: NDArray[Any]
    bfloat16: bool = False  # values are its bits, uint16: numpy has no such number

    @property
    def nbytes(self) -> int:
        return int(self.values.nbytes)


#: A list holds numbers, or one copy per sequence.
Copy: TypeAlias = "CopiedArray | list[Any]"


def snapshot(tensors: Mapping[str, object]) -> dict[str, Copy]:
    """Those that are not None. MalformedStep for what is neither array, tensor nor list."""
    for name in tensors:
        if name not in TENSORS:
            raise MalformedStep(f"there is a tensor {name!r}; accepted are {', '.join(TENSORS)}.")
    return {name: _copy(name, value) for name, value in tensors.items() if value is not None}


def size_in_memory(copies: Mapping[str, Copy]) -> int:
    """Bytes."""
    return sum(_size(copy) for copy in copies.values())


def _copy(name: str, value: object) -> Copy:
    torch = sys.modules.get("torch")  # a tensor cannot come from where torch was never imported
    if torch is not None and isinstance(value, torch.Tensor):
        return _copied_tensor(value, torch)
    if isinstance(value, np.ndarray):
        return _copied_array(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        # None represents a value that the engine could not give.
        numbers = not value or isinstance(value[0], int | float | np.number | None)
        return list(value) if numbers else [_copy(name, one) for one in value]
    raise MalformedStep(
        f"{name} is a {type(value).__name__}; accepted are numpy arrays, torch tensors and lists."
    )


def _copied_tensor(tensor: Any, torch: Any) -> CopiedArray:
    own = tensor.detach().to("cpu", copy=True).contiguous()
    if own.dtype is torch.bfloat16:
        return CopiedArray(own.view(torch.int16).numpy().view(np.uint16), bfloat16=True)
    return CopiedArray(own.numpy())


def _copied_array(array: NDArray[Any]) -> CopiedArray:
    own = np.array(array, order="C", copy=True)
    if own.dtype.name == "bfloat16":  # the type that jax and ml_dtypes give to numpy
        return CopiedArray(own.view(np.uint16), bfloat16=True)
    return CopiedArray(own)


def _size(copy: Copy) -> int:
    if isinstance(copy, CopiedArray):
        return copy.nbytes
    if is_per_sequence(copy):
        return sum(_size(one) for one in copy)
    return BYTES_PER_LISTED_NUMBER * len(copy)


def is_per_sequence(copy: Copy) -> bool:
    """One entry per sequence, each of them an array or a list, rather than one per token."""
    return isinstance(copy, list) and bool(copy) and isinstance(copy[0], CopiedArray | list)
