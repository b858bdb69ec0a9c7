"""Faults of records: values that no distribution gave, and tokens that do not belong.

In: a lab, a severity, a setting. Out: the pushed step. Placeholders, sentinels, NaN, tokens that
nobody sampled inside the mask, values rounded on the way.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from driftscope_probes.diagnosis.drill.case import Injection, Setting
from driftscope_probes.diagnosis.drill.lab import Lab, Sampled, Sampling
from driftscope_probes.diagnosis.drill.pool import (
    Turn,
    between,
    chosen,
    kept,
    logits_of,
    pair,
    scores,
)
from driftscope_probes.diagnosis.drill.transcript import (
    conversation_step,
    observation_part,
    observed,
    turn_part,
    turns_of,
)
from driftscope_probes.diagnosis.drill.vocabulary import vocabulary
from driftscope_probes.push.pushed_step import PushedStep

#: Tokens that a framework appends by itself: the end, and what a template writes behind it.
MOST_APPENDED = 3
CONSTANTS = (0.0, 1.0, -1.0)
SENTINELS = (-9999.0, -1e4, -100.0, -np.inf)
#: A part of the tokens, from one row's end to half of them.
HIT = (0.004, 0.5)
#: An observation is at least as long as the shortest response of the lab, this part of the most.
LAB_SHORTEST = 0.4


def appended(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> PushedStep:
    """End tokens that the engine did not report, with 0.0 in its place."""
    sound = pair(lab, setting)
    end = vocabulary(lab.model_folder).end
    added = 1 + int(severity * (MOST_APPENDED - 1) + 0.5)
    responses, logprobs = list(sound.sampled.responses), list(sound.sampled.logprobs)
    for row in chosen(len(responses), between(0.2, 1.0, severity), rng):
        responses[row] += (end,) * added
        logprobs[row] = np.concatenate([logprobs[row], np.zeros(added, np.float32)])
    longer = replace(sound.sampled, responses=tuple(responses), logprobs=tuple(logprobs))
    return lab.step(longer, scores(lab, setting, longer))


def constant_observations(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """Tokens of tools carry one constant, and the mask lets them in."""
    constant = CONSTANTS[int(rng.integers(len(CONSTANTS)))]
    (first, last) = turns_of(lab, setting, 2)
    filled = [np.full(len(ids), constant, np.float32) for ids in first.observations]
    return _let_in(lab, setting, (first, last), filled, severity, rng)


def replaced_continuation(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The engine ran on and made up the tool's answer; the real one took its place, not its values.

    The mask lets the real answer's tokens in.
    """
    (first, last) = turns_of(lab, setting, 2)
    made_up = kept(lab, ("made up", setting), lambda: _made_up(lab, setting, first))
    return _let_in(lab, setting, (first, last), made_up, severity, rng)


def _made_up(lab: Lab, setting: Setting, turn: Turn) -> list[NDArray[np.float32]]:
    longest = max(map(len, turn.observations))
    sampled = lab.roll_out(
        lab.engine(),
        observed(turn).prompts,
        Sampling(int(longest / LAB_SHORTEST) + 1),
        processed=False,
        batch=setting.batch,
        seed=setting.seed,
    )
    rows = zip(sampled.logprobs, turn.observations, strict=True)
    return [values[: len(ids)] for values, ids in rows]


def likeliest_of_prompt(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The engine's prompt log-probabilities, of which the first entry is the likeliest token's."""
    (first, last) = turns_of(lab, setting, 2)
    values = kept(lab, ("likeliest", setting), lambda: _likeliest(lab, setting, first))
    return _let_in(lab, setting, (first, last), values, severity, rng)


def _likeliest(lab: Lab, setting: Setting, turn: Turn) -> list[NDArray[np.float32]]:
    rows = logits_of(lab, lab.engine(), observed(turn), setting.microbatch)
    return [torch.log_softmax(row.float(), -1).amax(-1).numpy() for row in rows]


def _let_in(
    lab: Lab,
    setting: Setting,
    turns: tuple[Turn, Turn],
    rollout: list[NDArray[np.float32]],
    severity: float,
    rng: np.random.Generator,
) -> PushedStep:
    """Observations between two turns, unmasked in some rows and masked in the others."""
    first, last = turns
    rows = set(chosen(setting.sequences, between(0.2, 1.0, severity), rng).tolist())
    mask = [row in rows for row in range(setting.sequences)]
    parts = [
        turn_part(first, scores(lab, setting, first.sampled)),
        observation_part(lab, setting, first, rollout, mask),
        turn_part(last, scores(lab, setting, last.sampled)),
    ]
    return conversation_step(lab, turns, parts, with_turns=bool(rng.random() < 0.5))


def sentinels(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> PushedStep:
    """The engine's list has no number at some tokens, and a sentinel was written instead."""
    sound = pair(lab, setting)
    packed = np.concatenate(sound.sampled.logprobs)
    hit = np.zeros(packed.size, np.bool_)
    hit[chosen(packed.size, between(*HIT, severity), rng)] = True
    packed[hit] = SENTINELS[int(rng.integers(len(SENTINELS)))]
    return lab.step(_repacked(sound.sampled, packed), sound.scored)


def broken_rows(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The trainer's values are NaN from some token of a row on, or in whole rows."""
    sound = pair(lab, setting)
    values = sound.scored.logprobs.copy()
    whole = bool(rng.random() < 0.5)
    for row in chosen(len(sound.sampled.responses), between(0.05, 1.0, severity), rng):
        begin, end = int(sound.limits[row]), int(sound.limits[row + 1])
        values[begin if whole else int(rng.integers(begin, end)) : end] = np.nan
    return lab.step(sound.sampled, replace(sound.scored, logprobs=values))


class ExactHead:
    """A model with its output layer in float32, behind a body in the model's dtype."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, **inputs: Any) -> Any:
        hidden = self._model.model(**inputs).last_hidden_state.float()
        return SimpleNamespace(logits=hidden @ self._model.lm_head.weight.float().T)


def rounded_target(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The trainer's head is in float32; the target's logit went through bf16, the sum did not."""
    values = [
        (target.bfloat16().float() - total).numpy()
        for target, total in _targets_and_sums(lab, setting)
    ]
    rows = chosen(len(values), between(0.2, 1.0, severity), rng)
    return _of_trainer(lab, setting, values, rows)


def rounded_sum(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The trainer's head is in float32; the log of the sum is kept in bf16, the target is not."""
    values = [
        (target - total.bfloat16().float()).numpy()
        for target, total in _targets_and_sums(lab, setting)
    ]
    rows = chosen(len(values), between(0.2, 1.0, severity), rng)
    return _of_trainer(lab, setting, values, rows)


def _targets_and_sums(lab: Lab, setting: Setting) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Per sequence the chosen logits and the log of the sum over all, float32 [tokens] each."""
    sampled = pair(lab, setting).sampled
    rows = logits_of(lab, ExactHead(lab.trainer()), sampled, setting.microbatch)
    return [
        (logits.gather(1, torch.tensor(ids)[:, None])[:, 0], logits.logsumexp(-1))
        for logits, ids in zip(rows, sampled.responses, strict=True)
    ]


def _of_trainer(
    lab: Lab, setting: Setting, values: list[NDArray[np.float32]], rows: NDArray[np.int64]
) -> PushedStep:
    sound = pair(lab, setting)
    packed = sound.scored.logprobs.copy()
    for row in rows:
        packed[int(sound.limits[row]) : int(sound.limits[row + 1])] = values[row]
    return lab.step(sound.sampled, replace(sound.scored, logprobs=packed))


def stored_in_bf16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rounded to bf16 and widened again; any shape."""
    rounded: NDArray[np.float32] = torch.tensor(values).bfloat16().float().numpy()
    return rounded


def rollout_stored_in_bf16(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The engine's log-probabilities travel in bf16; there is no more or less of it."""
    sound = pair(lab, setting)
    logprobs = tuple(map(stored_in_bf16, sound.sampled.logprobs))
    return lab.step(replace(sound.sampled, logprobs=logprobs), sound.scored)


def trainer_stored_in_bf16(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The trainer gathers its log-probabilities in bf16."""
    sound = pair(lab, setting)
    rounded = stored_in_bf16(sound.scored.logprobs)
    return lab.step(sound.sampled, replace(sound.scored, logprobs=rounded))


def _repacked(sampled: Sampled, packed: NDArray[np.float32]) -> Sampled:
    limits = np.cumsum([len(ids) for ids in sampled.responses])[:-1]
    return replace(sampled, logprobs=tuple(np.split(packed, limits)))


INJECTIONS: tuple[Injection, ...] = (
    Injection(
        "placeholder_logprob", "a", "appended end tokens carry 0.0 on the engine's side", appended
    ),
    Injection(
        "placeholder_logprob",
        "b",
        "a tool's tokens carry 0.0, 1.0 or -1.0 on the engine's side, unmasked",
        constant_observations,
    ),
    Injection(
        "mask_contamination",
        "a",
        "a tool's answer stands in the mask, with the values of what the engine made up there",
        replaced_continuation,
    ),
    Injection(
        "mask_contamination",
        "b",
        "a tool's answer stands in the mask, with the likeliest token's values of its prompt",
        likeliest_of_prompt,
    ),
    Injection(
        "sentinel_or_nan_logprob",
        "a",
        "a sentinel or -inf stands for values that the engine did not report",
        sentinels,
    ),
    Injection(
        "sentinel_or_nan_logprob",
        "b",
        "the trainer's values are NaN from some token of a row on",
        broken_rows,
    ),
    Injection(
        "positive_logprob",
        "a",
        "the target's logit is rounded to bf16, the log of the sum is not",
        rounded_target,
    ),
    Injection(
        "positive_logprob",
        "b",
        "the log of the sum is rounded to bf16, the target's logit is not",
        rounded_sum,
    ),
    Injection(
        "lm_head_precision",
        "a",
        "the engine's log-probabilities are stored in bf16",
        rollout_stored_in_bf16,
        dtypes=("fp32",),
    ),
    Injection(
        "lm_head_precision",
        "b",
        "the trainer's log-probabilities are stored in bf16",
        trainer_stored_in_bf16,
        dtypes=("fp32",),
    ),
)
