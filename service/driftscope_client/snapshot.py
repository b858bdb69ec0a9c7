"""The tensors of a step, and copies of them that the caller can no longer change."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from driftscope_client.errors import MalformedStep

SCHEMA_VERSION = "1"

Per = Literal["token", "sequence", "limit", "prompt"]
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
    "token_behavior_version": ("token", "integer"),
    "rank": ("sequence", "integer"),
    "replica": ("sequence", "integer"),
    "cached_tokens": ("sequence", "integer"),
    "prompt_lengths": ("sequence", "integer"),
    "prompt_token_ids": ("prompt", "integer"),
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


#: What else the tensors are called where the two sides come from.
NAMES_ELSEWHERE: Mapping[str, str] = {
    "rollout_log_probs": "rollout_logprobs",
    "generation_logprobs": "rollout_logprobs",
    "inference_logprobs": "rollout_logprobs",
    "sampling_per_token_logps": "rollout_logprobs",
    "old_log_probs": "trainer_logprobs",
    "old_per_token_logps": "trainer_logprobs",
    "prev_logprobs": "trainer_logprobs",
    "log_probs": "trainer_logprobs",
    "response_mask": "mask",
    "loss_mask": "mask",
    "completion_mask": "mask",
    "responses": "token_ids",
    "completion_ids": "token_ids",
}


def snapshot(tensors: Mapping[str, object]) -> dict[str, Copy]:
    """Those that are not None. MalformedStep for what is neither array, tensor nor list."""
    for name in tensors:
        if name not in TENSORS:
            raise MalformedStep(
                f"there is a tensor {name!r}; accepted are {', '.join(TENSORS)}.",
                remedy=_rename(name),
            )
    return {name: _copy(name, value) for name, value in tensors.items() if value is not None}


def _rename(name: str) -> str:
    close = [NAMES_ELSEWHERE[name]] if name in NAMES_ELSEWHERE else get_close_matches(name, TENSORS)
    if close:
        return f"call it {close[0]}, if that is what it holds."
    return f"leave {name} out, or put what describes the step into metadata."


def size_in_memory(copies: Mapping[str, Copy]) -> int:
    """Bytes."""
    return sum(_size(copy) for copy in copies.values())


def _copy(name: str, value: object) -> Copy:
    torch = sys.modules.get("torch")  # a tensor cannot come from where torch was never imported
    if torch is not None and isinstance(value, torch.Tensor):
        return _copied_tensor(name, value, torch)
    if isinstance(value, np.ndarray):
        return _copied_array(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _copied_list(name, value)
    raise MalformedStep(
        f"{name} is a {type(value).__name__}; accepted are numpy arrays, torch tensors and lists.",
        remedy=VLLM_DICTS if isinstance(value, Mapping) else PLAIN,
    )


PLAIN = "give an array or a tensor, or one list, array or tensor per sequence."
VLLM_DICTS = (
    "take the number of the sampled token out of each: [at[token].logprob for at, token in "
    "zip(output.logprobs, output.token_ids)] with vLLM's own objects."
)
TRIPLES = (
    "take the first of each triple: [[token[0] for token in one] for one in answers]; "
    "the second are the rollout_token_ids."
)


def _copied_list(name: str, values: Sequence[Any]) -> Copy:
    if values and all(_is_triple(one) for one in values):
        raise MalformedStep(
            f"{name} holds triples of log-probability, token id and text, as SGLang's "
            f"output_token_logprobs does: {list(values[0])!r}.",
            remedy=TRIPLES,
        )
    # None represents a value that the engine could not give.
    numbers = not values or isinstance(values[0], int | float | np.number | None)
    return list(values) if numbers else [_copy(name, one) for one in values]


def _is_triple(one: object) -> bool:
    """SGLang's text is None unless it was asked for; a log-probability is never an int there."""
    return (
        isinstance(one, list | tuple)
        and len(one) == 3
        and isinstance(one[0], float | None)
        and type(one[1]) is int
        and isinstance(one[2], str | None)
    )


def _copied_tensor(name: str, tensor: Any, torch: Any) -> Copy:
    if tensor.is_nested:  # jagged: verl's newer batches
        return [_copied_tensor(name, one, torch) for one in tensor.detach().unbind()]
    try:
        own = tensor.detach().to("cpu", copy=True).contiguous()
        if own.dtype is torch.bfloat16:
            return CopiedArray(own.view(torch.int16).numpy().view(np.uint16), bfloat16=True)
        return CopiedArray(own.numpy())
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise MalformedStep(
            f"{name} is a {type(tensor).__name__} of layout {tensor.layout} and dtype "
            f"{tensor.dtype} on {tensor.device} that cannot be copied to numpy: {error}.",
            remedy="give a plain tensor: full_tensor() of a distributed one, to_dense() of a "
            "sparse one, float() of a quantised one.",
        ) from error


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
