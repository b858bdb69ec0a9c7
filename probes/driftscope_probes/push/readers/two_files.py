"""Each side in a file of its own → one step.

In: the rollout's file and the trainer's, in any format that is read. Out: PushedStep with the
log-probabilities of both; token ids of both sides where both have them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.push.column_names import COLUMN_OF, ColumnNames, Side
from driftscope_probes.push.lengths import lengths_fault
from driftscope_probes.push.pushed_step import PushedStep, pushed_step, response_span
from driftscope_probes.push.rules import RULES, PushError


def names_of_side(columns: ColumnNames, side: Side) -> ColumnNames:
    """What was mapped for the other side is of the other file."""
    other = COLUMN_OF["trainer" if side == "rollout" else "rollout"]
    return ColumnNames({k: v for k, v in columns.given.items() if k != other}, side)


def joined_sides(rollout: PushedStep, trainer: PushedStep, trainer_file: Path) -> PushedStep:
    """rollout, trainer: each read for its own side."""
    if trainer.sequences == 1 and trainer.tokens == rollout.tokens:
        trainer = _recut(trainer, rollout.cu_seqlens)
    if not np.array_equal(trainer.cu_seqlens, rollout.cu_seqlens) and not trainer.mask.all():
        trainer = _unmasked(trainer)
    if (end := _ends_of(trainer, rollout)) is not None:
        trainer = _kept(trainer, end, rollout.cu_seqlens)
    own, others = np.diff(trainer.cu_seqlens).tolist(), np.diff(rollout.cu_seqlens).tolist()
    if fault := lengths_fault("trainer_logprobs", own, "rollout_logprobs", others):
        raise PushError(f"{trainer_file.name}: {fault.message}", remedy=fault.remedy)
    # Where each side brings the ids that it saw, the comparison says which differ.
    sampled, scored = rollout.extras.token_ids, trainer.extras.token_ids
    differing = None if scored is None or sampled is None else sampled.astype(np.int32, copy=False)
    token_ids = sampled if scored is None else scored
    return replace(
        rollout,
        trainer=trainer.trainer,
        mask=rollout.mask & trainer.mask,
        rollout_token_ids=differing,
        advantages=_either(rollout.advantages, trainer.advantages),
        trainer_routed_experts=trainer.trainer_routed_experts,
        extras=replace(
            rollout.extras,
            token_ids=token_ids,
            entropy=_either(rollout.extras.entropy, trainer.extras.entropy),
        ),
        metadata={**trainer.metadata, **rollout.metadata},
    )


def _recut(step: PushedStep, limits: NDArray[np.int64]) -> PushedStep:
    """One flat list that does not say where sequences end: they end where the other side's do."""
    return replace(
        step,
        cu_seqlens=limits,
        extras=type(step.extras)(token_ids=step.extras.token_ids, entropy=step.extras.entropy),
    )


def _unmasked(step: PushedStep) -> PushedStep:
    """Of whole sequences, the span from the first to the last unmasked token of each."""
    span = response_span(step.mask, step.cu_seqlens)
    return _kept(step, span.keep, span.cu_seqlens)


def _ends_of(longer: PushedStep, shorter: PushedStep) -> NDArray[np.bool_] | None:
    """[tokens] of `longer`, the end of each sequence: where its ids are those of the other side.

    A server that scores a response as a prompt has the prompt's tokens before it. None: they are
    not there, or the ids do not say so."""
    ids, other = longer.extras.token_ids, shorter.extras.token_ids
    own, wanted = np.diff(longer.cu_seqlens), np.diff(shorter.cu_seqlens)
    if ids is None or other is None or own.size != wanted.size or (own < wanted).any():
        return None
    back = np.repeat(longer.cu_seqlens[1:], own) - np.arange(longer.tokens)  # 1: the last
    keep: NDArray[np.bool_] = back <= np.repeat(wanted, own)
    return keep if (own > wanted).any() and np.array_equal(ids[keep], other) else None


def _kept(step: PushedStep, keep: NDArray[np.bool_], cu_seqlens: NDArray[np.int64]) -> PushedStep:
    tensors = {
        name: tensor[keep] if RULES[name].per == "token" else tensor
        for name, tensor in step.tensors().items()
    }
    return pushed_step({**tensors, "cu_seqlens": cu_seqlens}, step.metadata)


def _either(first: NDArray[Any] | None, second: NDArray[Any] | None) -> NDArray[Any] | None:
    return second if first is None else first
