"""PushedStep: the checked tensors of one training step, and the span of its responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.push.rules import MAX_SEQUENCES, MAX_TOKENS, RULES, PushError


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


FloatTensor: TypeAlias = NDArray[np.float32]
IdTensor: TypeAlias = NDArray[np.int32]
ExpertTensor: TypeAlias = NDArray[np.uint8] | NDArray[np.int16]


@dataclass(frozen=True, slots=True, eq=False)
class PushedStep:
    """Sequence i occupies the half-open range cu_seqlens[i]:cu_seqlens[i + 1].

    Log-probabilities are as they were sent: NaN, infinite, zero and positive ones included.
    """

    rollout_logprobs: FloatTensor  # [tokens], nats
    trainer_logprobs: FloatTensor  # [tokens], nats
    cu_seqlens: NDArray[np.int64]  # [sequences + 1]
    mask: NDArray[np.bool_]  # [tokens], True where the token takes part in a comparison
    token_ids: IdTensor | None = None  # [tokens]
    rollout_token_ids: IdTensor | None = None  # [tokens], equal to token_ids
    advantages: FloatTensor | None = None  # [tokens]
    entropy: FloatTensor | None = None  # [tokens], nats
    position_ids: IdTensor | None = None  # [tokens]
    turn_ids: IdTensor | None = None  # [tokens]
    behavior_version: IdTensor | None = None  # [sequences], weights that sampled the sequence
    routed_experts: ExpertTensor | None = None  # [tokens, layers, k], of the rollout
    trainer_routed_experts: ExpertTensor | None = None  # [tokens, layers, k]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_sizes(self)
        _check_limits(self.cu_seqlens, self.tokens)
        _check_token_ids(self)
        for tensor in self.tensors().values():
            tensor.setflags(write=False)

    @property
    def tokens(self) -> int:
        return int(self.rollout_logprobs.size)

    @property
    def sequences(self) -> int:
        return int(self.cu_seqlens.size - 1)

    def sequence(self, index: int) -> slice:
        return slice(int(self.cu_seqlens[index]), int(self.cu_seqlens[index + 1]))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Those that were sent, by name."""
        named = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, np.ndarray)}


def pushed_step(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> PushedStep:
    """From tensors in their final dtypes; mask may be uint8 or absent: every token takes part."""
    given = dict(tensors)
    given["cu_seqlens"] = given["cu_seqlens"].astype(np.int64, copy=False)
    if "mask" not in given:
        given["mask"] = np.ones(given["rollout_logprobs"].size, dtype=np.bool_)
    given["mask"] = as_mask(given["mask"])
    return PushedStep(**given, metadata=dict(metadata))


def as_mask(values: NDArray[Any]) -> NDArray[np.bool_]:
    """0 and 1 as booleans, same shape; PushError for any other value."""
    if values.dtype == np.bool_:
        return values
    if values.size and values.max() > 1:
        place = np.unravel_index(int(np.argmax(values > 1)), values.shape)
        raise PushError(
            f"mask has the value {values[place]} at {', '.join(map(str, place))}.",
            remedy="use 1 for tokens that take part and 0 for all others; weights have no place.",
        )
    return values.astype(np.bool_)


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
    sizes = {"token": step.tokens, "sequence": step.sequences, "limit": step.cu_seqlens.size}
    for name, tensor in step.tensors().items():
        rule = RULES[name]
        if tensor.ndim != 1 + rule.inner_dimensions or tensor.shape[0] != sizes[rule.per]:
            raise PushError(
                f"{name} has shape {list(tensor.shape)}, the step has {step.tokens} tokens in "
                f"{step.sequences} sequences.",
                remedy=f"give {name} one entry per {rule.per}, of the same step.",
            )


def _check_limits(cu_seqlens: NDArray[np.int64], tokens: int) -> None:
    # The range first: differences of arbitrary 64-bit numbers wrap around and can look monotonic.
    outside = np.flatnonzero((cu_seqlens < 0) | (cu_seqlens > tokens))
    remedy = "give cumulative lengths: 0, len_0, len_0 + len_1, …, tokens."
    if outside.size:
        place = int(outside[0])
        raise PushError(
            f"cu_seqlens[{place}] is {cu_seqlens[place]}, outside 0 to {tokens} tokens.",
            remedy=remedy,
        )
    if cu_seqlens.size < 2 or cu_seqlens[0] != 0 or cu_seqlens[-1] != tokens:
        shown = np.array2string(cu_seqlens, threshold=8)
        raise PushError(
            f"cu_seqlens {shown} does not run from 0 to the number of tokens, {tokens}.",
            remedy=remedy,
        )
    falling = np.flatnonzero(np.diff(cu_seqlens) < 0)
    if falling.size:
        place = int(falling[0])
        raise PushError(
            f"cu_seqlens falls from {cu_seqlens[place]} to {cu_seqlens[place + 1]} at {place + 1}.",
            remedy=remedy,
        )


def _check_token_ids(step: PushedStep) -> None:
    """Masked tokens too: one that differs changes what every later token is conditioned on."""
    if step.rollout_token_ids is None:
        return
    if step.token_ids is None:
        raise PushError(
            "there are rollout_token_ids and no token_ids to check them against.",
            remedy="give the ids that the trainer scored as token_ids.",
        )
    unequal = np.flatnonzero(step.token_ids != step.rollout_token_ids)
    if unequal.size:
        place = int(unequal[0])
        sequence = int(np.searchsorted(step.cu_seqlens, place, side="right")) - 1
        raise PushError(
            f"{unequal.size} token ids differ between rollout and trainer, the first at token "
            f"{place} (sequence {sequence}, place {place - int(step.cu_seqlens[sequence])}): "
            f"{int(step.rollout_token_ids[place])} against {int(step.token_ids[place])}.",
            remedy="pass the engine's token ids to the trainer; never re-tokenise the text.",
        )
