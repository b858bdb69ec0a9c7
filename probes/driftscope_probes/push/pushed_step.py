"""PushedStep: the checked tensors of one training step, and the span of its responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.push.conversion import cu_seqlens_remedy, expanded
from driftscope_probes.push.rules import (
    MAX_SEQUENCES,
    MAX_TOKENS,
    RULES,
    PushError,
    environment_names,
)
from driftscope_probes.tokens import (
    Extras,
    Tokens,
    check_labels,
    cu_seqlens_fault,
    outside_mask,
)


@dataclass(frozen=True, slots=True)
class ResponseSpan:
    keep: NDArray[np.bool_]  # [tokens]
    cu_seqlens: NDArray[np.int64]  # [sequences + 1], of the tokens that stay


def response_span(mask: NDArray[np.bool_], cu_seqlens: NDArray[np.int64]) -> ResponseSpan:
    """A sequence without any unmasked token becomes an empty one; none disappears."""
    unmasked = np.flatnonzero(mask)
    before = np.searchsorted(unmasked, cu_seqlens)
    filled = before[1:] > before[:-1]
    first = unmasked[before[:-1][filled]]
    after_last = unmasked[before[1:][filled] - 1] + 1
    edges = np.zeros(mask.size + 1, dtype=np.int8)
    edges[first] += 1
    edges[after_last] -= 1  # may be the first of the next sequence: the edges cancel out
    lengths = np.zeros(filled.size, dtype=np.int64)
    lengths[filled] = after_last - first
    keep = np.cumsum(edges[:-1], dtype=np.int8).astype(np.bool_)
    return ResponseSpan(keep, np.concatenate([[0], np.cumsum(lengths)]))


@dataclass(frozen=True, slots=True, eq=False)
class PushedStep(Tokens):
    """Log-probabilities are as they were sent: NaN, infinite, zero and positive ones included."""

    mask: NDArray[np.bool_]  # [tokens]
    rollout_token_ids: NDArray[np.int32] | None = None  # [tokens], may differ from token_ids
    prompt_token_ids: NDArray[np.int32] | None = None  # [sum of prompt_lengths], prompt by prompt
    advantages: NDArray[np.float32] | None = None  # [tokens]
    routed_experts: NDArray[np.integer[Any]] | None = None  # [tokens, layers, k], of the rollout
    trainer_routed_experts: NDArray[np.integer[Any]] | None = None  # [tokens, layers, k]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_sizes(self)
        fault = cu_seqlens_fault(self.cu_seqlens, self.tokens)
        if fault is not None:
            raise PushError(fault, remedy=cu_seqlens_remedy(self.cu_seqlens, self.tokens))
        check_labels(self.extras, PushError, environment_names(self.metadata))
        for tensor in self.tensors().values():
            tensor.setflags(write=False)

    @property
    def prompts(self) -> list[NDArray[np.int32]] | None:
        """The prompt of each sequence; None where they were not sent."""
        ids, lengths = self.prompt_token_ids, self.extras.prompt_lengths
        if ids is None or lengths is None:
            return None
        return np.split(ids, np.cumsum(lengths[:-1], dtype=np.int64))

    @property
    def tokens(self) -> int:
        return int(self.rollout.size)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Those that were sent, by name."""
        named = {"rollout_logprobs": self.rollout, "trainer_logprobs": self.trainer}
        for part in (self, self.extras):
            named |= {item.name: getattr(part, item.name) for item in fields(part)}
        return {name: named[name] for name in RULES if named[name] is not None}


def pushed_step(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> PushedStep:
    """From tensors in their final dtypes; mask may be 0 and 1 in any dtype, or absent: every token
    takes part. Advantages may be one per sequence, behavior_version one per token."""
    sent: dict[str, Any] = expanded(tensors)
    rollout = sent.pop("rollout_logprobs")
    return PushedStep(
        rollout,
        sent.pop("trainer_logprobs"),
        sent.pop("cu_seqlens").astype(np.int64, copy=False),
        as_mask(sent.pop("mask")) if "mask" in sent else np.ones(rollout.size, dtype=np.bool_),
        Extras(**{item.name: sent.pop(item.name, None) for item in fields(Extras)}),
        **sent,
        metadata=dict(metadata),
    )


#: What torch's losses skip, and so what Hugging Face's labels hold where no token counts.
IGNORED_LABEL = -100


def as_mask(values: NDArray[Any]) -> NDArray[np.bool_]:
    """0 and 1 as booleans, same shape; PushError for any other value."""
    if values.dtype == np.bool_:
        return values
    outside = outside_mask(values)
    if outside.any():
        index = np.unravel_index(int(np.argmax(outside)), values.shape)
        raise PushError(
            f"mask has the value {values[index]} at {', '.join(map(str, index))}.",
            remedy="-100 marks labels that are left out: store (labels != -100)."
            if (values[outside] == IGNORED_LABEL).all()
            else "use 1 for tokens that take part and 0 for all others; weights have no place.",
        )
    return values.astype(np.bool_)


def _prompt_tokens(step: PushedStep) -> int:
    """How many prompt_token_ids there must be."""
    lengths = step.extras.prompt_lengths
    if step.prompt_token_ids is None:
        return 0
    if lengths is None or (lengths < 0).any():
        raise PushError(
            "there are prompt_token_ids, and no prompt_lengths of 0 or more.",
            remedy="give prompt_lengths: how many of prompt_token_ids belong to each sequence.",
        )
    return int(lengths.sum(dtype=np.int64))


def _check_sizes(step: PushedStep) -> None:
    for name, most, given in (
        ("tokens", MAX_TOKENS, step.tokens),
        ("sequences", MAX_SEQUENCES, step.sequences),
    ):
        if given > most:
            raise PushError(
                f"it has {given:,} {name}, accepted are {most:,}.",
                remedy="push each data-parallel rank's share as a file of its own.",
            )
    sizes = {
        **{"token": step.tokens, "sequence": step.sequences, "limit": step.cu_seqlens.size},
        "prompt": _prompt_tokens(step),
    }
    for name, tensor in step.tensors().items():
        rule = RULES[name]
        if tensor.ndim != 1 + rule.inner_dimensions or tensor.shape[0] != sizes[rule.per]:
            raise PushError(
                f"{name} has shape {list(tensor.shape)}, the step has {step.tokens} tokens in "
                f"{step.sequences} sequences.",
                remedy="give every prompt once per sequence, one after another: as many ids as "
                "prompt_lengths come to."
                if rule.per == "prompt"
                else f"give {name} one entry per {rule.per}, of the same step.",
            )
