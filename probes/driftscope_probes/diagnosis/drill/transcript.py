"""Transcript: conversations as a trainer lays them out, turn after turn in one row.

In: turns of a pool, what both sides say of their tokens. Out: the pushed step. Between two turns
stand observations (a user's or a tool's answer), tokens that the engine did not sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.drill.case import Setting
from driftscope_probes.diagnosis.drill.lab import Lab, Prompts, Sampled, Scored
from driftscope_probes.diagnosis.drill.pool import Turn, conversation, scores
from driftscope_probes.diagnosis.drill.vocabulary import vocabulary
from driftscope_probes.push.pushed_step import PushedStep

#: Answers of tools and users, short enough for rows of 48 tokens.
ANSWERS: tuple[str, ...] = (
    '{"status": 404}',
    "Total: 1,284 rows",
    '{"price": 68.0}',
    "No, shorter please.",
    "stdout: 42",
    "KeyError: 'user'",
    "2024-05-31 09:40",
    "Are you sure?",
    "3 tests passed, 1 failed",
    "Paris, Lyon, Nice",
)


def observations(lab: Lab, setting: Setting, turn: int) -> Prompts:
    """What the conversation's rows get to read after `turn`: half from a tool, half from a user."""
    words = vocabulary(lab.model_folder)
    rng = np.random.default_rng([lab.seed, setting.seed, turn])
    return tuple(
        words.reply_to(
            "tool" if rng.random() < 0.5 else "user", ANSWERS[int(rng.integers(len(ANSWERS)))]
        )
        for _ in range(setting.sequences)
    )


def turns_of(lab: Lab, setting: Setting, count: int) -> tuple[Turn, ...]:
    return conversation(lab, setting, count, lambda turn: observations(lab, setting, turn))


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A turn, or an observation, of all rows. mask[i]: whether row i's tokens take part."""

    ids: Prompts
    rollout: tuple[NDArray[np.float32], ...]
    trainer: tuple[NDArray[np.float32], ...]
    entropy: tuple[NDArray[np.float32], ...]
    mask: tuple[bool, ...]
    present: bool = True  # False: the tokens are left out, their positions stay


def turn_part(turn: Turn, scored: Scored) -> Part:
    """A turn of the assistant, sampled and scored."""
    limits = np.cumsum([len(ids) for ids in turn.sampled.responses])[:-1]
    rows = len(turn.sampled.responses)
    return Part(
        turn.sampled.responses,
        turn.sampled.logprobs,
        tuple(np.split(scored.logprobs, limits)),
        tuple(np.split(scored.entropy, limits)),
        (True,) * rows,
    )


def observed(turn: Turn) -> Sampled:
    """The observation behind a turn as something to score; its log-probabilities are 0."""
    prompts = tuple(
        prompt + response
        for prompt, response in zip(turn.sampled.prompts, turn.sampled.responses, strict=True)
    )
    zeros = tuple(np.zeros(len(ids), np.float32) for ids in turn.observations)
    return replace(turn.sampled, prompts=prompts, responses=turn.observations, logprobs=zeros)


def masked_part(turn: Turn, *, present: bool) -> Part:
    """An observation that takes no part: frameworks fill both sides with 0."""
    zeros = tuple(np.zeros(len(ids), np.float32) for ids in turn.observations)
    return Part(turn.observations, zeros, zeros, zeros, (False,) * len(zeros), present)


def observation_part(
    lab: Lab,
    setting: Setting,
    turn: Turn,
    rollout: Sequence[NDArray[np.float32]],
    mask: Sequence[bool],
) -> Part:
    """An observation that the trainer scored; `rollout` is what the engine's list holds there."""
    scored = scores(lab, setting, observed(turn))
    limits = np.cumsum([len(ids) for ids in turn.observations])[:-1]
    values = zip(rollout, mask, strict=True)
    return Part(
        turn.observations,
        tuple(own if taken else np.zeros_like(own) for own, taken in values),
        tuple(np.split(scored.logprobs, limits)),
        tuple(np.split(scored.entropy, limits)),
        tuple(mask),
    )


def conversation_step(
    lab: Lab, turns: Sequence[Turn], parts: Sequence[Part], *, with_turns: bool
) -> PushedStep:
    """`parts` in the order of the conversation. `with_turns`: push turn_ids."""
    first = turns[0].sampled
    rows = range(len(first.prompts))
    present = [part for part in parts if part.present]
    sampled = replace(
        first,
        responses=tuple(sum((part.ids[row] for part in present), ()) for row in rows),
        logprobs=tuple(np.concatenate([part.rollout[row] for part in present]) for row in rows),
    )
    scored = Scored(
        np.concatenate([part.trainer[row] for row in rows for part in present]),
        np.concatenate([part.entropy[row] for row in rows for part in present]),
    )
    taken = [np.full(len(part.ids[row]), part.mask[row]) for row in rows for part in present]
    extras: dict[str, NDArray[Any]] = {
        "mask": np.concatenate(taken).astype(np.uint8),
        "position_ids": _positions(first.prompts, parts),
    }
    if with_turns:
        numbers = [
            np.full(len(part.ids[row]), index, np.int32)
            for row in rows
            for index, part in enumerate(present)
        ]
        extras["turn_ids"] = np.concatenate(numbers)
    return lab.step(sampled, scored, None, **extras)


def _positions(prompts: Prompts, parts: Sequence[Part]) -> NDArray[np.int32]:
    """[tokens that are present], counted over those that are not as well."""
    found = []
    for row, prompt in enumerate(prompts):
        position = len(prompt)
        for part in parts:
            length = len(part.ids[row])
            if part.present:
                found.append(np.arange(position, position + length, dtype=np.int32))
            position += length
    return np.concatenate(found)
