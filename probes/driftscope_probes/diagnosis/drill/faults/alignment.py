"""Faults of alignment: the two values of one place do not speak of the same token.

In: a lab, a severity, a setting. Out: the pushed step. Shifts, swapped rows, other token ids,
the label of the last token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from driftscope_probes.diagnosis.drill.case import Injection, Setting
from driftscope_probes.diagnosis.drill.lab import Lab, Prompts, Sampled, Scored
from driftscope_probes.diagnosis.drill.pool import Pair, between, chosen, pair, scores
from driftscope_probes.diagnosis.drill.vocabulary import vocabulary
from driftscope_probes.push.pushed_step import PushedStep

#: Part of the sequences that a fault reaches, at severity 0 and 1: one rank's share, or all.
REACHED = (0.2, 1.0)


def shifted_pack(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The packed trainer values slide by one, over the borders of the sequences of one rank."""
    sound = pair(lab, setting)
    count = len(sound.sampled.responses)
    reached = max(1, round(between(*REACHED, severity) * count))
    first = int(rng.integers(count - reached + 1))
    rank = slice(int(sound.limits[first]), int(sound.limits[first + reached]))
    values = sound.scored.logprobs.copy()
    values[rank] = np.roll(values[rank], int(rng.choice((-1, 1))))
    return lab.step(sound.sampled, replace(sound.scored, logprobs=values))


def shifted_rows(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The engine's list begins with the prompt's last token, or lost its first: per sequence."""
    sound = pair(lab, setting)
    lag = int(rng.choice((-1, 1)))
    logprobs = list(sound.sampled.logprobs)
    for row in chosen(len(logprobs), between(*REACHED, severity), rng):
        values = np.roll(logprobs[row], lag)
        # What stands at the end that the slide left open: nothing known, or the neighbour's value.
        values[-1 if lag < 0 else 0] = 0.0 if rng.random() < 0.5 else values[-2 if lag < 0 else 1]
        logprobs[row] = values
    return lab.step(replace(sound.sampled, logprobs=tuple(logprobs)), sound.scored)


@dataclass(frozen=True, slots=True)
class _Late:
    """A model whose logits stand one place too late or too early in some rows: labels missed."""

    model: Any
    by: int

    def __call__(self, **inputs: Any) -> Any:
        output = self.model(**inputs)
        output.logits = torch.roll(output.logits, self.by, 1)
        return output


def missed_labels(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The trainer forgot to shift its labels: each token is looked up in a neighbour's logits."""
    sound = pair(lab, setting)
    model = _Late(lab.trainer(), int(rng.choice((-1, 1))))
    wrong = lab.score(model, sound.sampled, microbatch=setting.microbatch)
    rows = chosen(len(sound.sampled.responses), between(*REACHED, severity), rng)
    return lab.step(sound.sampled, replaced_rows(sound, wrong, rows))


def shifted_rows_or_labels(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """Two of three slide the values; the third looks up each token in a neighbour's logits."""
    inject = shifted_rows if rng.random() < 2 / 3 else missed_labels
    return inject(lab, severity, rng, setting)


def replaced_rows(sound: Pair, other: Scored, rows: NDArray[np.int64]) -> Scored:
    """The pair's scores with those rows from `other`, which has the same lengths."""
    logprobs, entropy = sound.scored.logprobs.copy(), sound.scored.entropy.copy()
    for row in rows:
        own = slice(int(sound.limits[row]), int(sound.limits[row + 1]))
        logprobs[own], entropy[own] = other.logprobs[own], other.entropy[own]
    return Scored(logprobs, entropy)


def swapped_rows(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The trainer's padded batch was shuffled, the engine's not; both masks are applied."""
    sound = pair(lab, setting)
    rows = rng.permutation(chosen(len(sound.sampled.responses), between(0.25, 1.0, severity), rng))
    if rows.size < 2:
        rows = np.array([0, 1])
    logprobs, entropy = sound.scored.logprobs.copy(), sound.scored.entropy.copy()
    mask = np.ones(logprobs.size, np.uint8)
    for row, other in zip(rows, np.roll(rows, 1), strict=True):
        begin, source = int(sound.limits[row]), int(sound.limits[other])
        length = int(sound.limits[row + 1]) - begin
        shared = min(length, int(sound.limits[other + 1]) - source)
        logprobs[begin : begin + shared] = sound.scored.logprobs[source : source + shared]
        entropy[begin : begin + shared] = sound.scored.entropy[source : source + shared]
        mask[begin + shared : begin + length] = 0
    return lab.step(sound.sampled, Scored(logprobs, entropy), mask=mask)


def other_prompts(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """Responses of some rows are scored behind another row's prompt."""
    sound = pair(lab, setting)
    prompts = list(sound.sampled.prompts)
    distinct = sorted(set(prompts))
    rows = chosen(len(prompts), between(0.25, 1.0, severity), rng)
    for row in rows:
        others = [prompt for prompt in distinct if prompt != prompts[row]]
        if others:
            prompts[row] = others[int(rng.integers(len(others)))]
    mispaired = replace(sound.sampled, prompts=tuple(prompts))
    return lab.step(sound.sampled, scores(lab, setting, mispaired))


def encoded_again(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The trainer got text: it decodes to the same, other ids come out, often more or fewer."""
    sound = pair(lab, setting)
    words = vocabulary(lab.model_folder)
    rows = chosen(len(sound.sampled.responses), between(*REACHED, severity), rng)
    trained = list(sound.sampled.responses)
    for row in rows:
        trained[row] = words.encoded(words.text(trained[row])) or trained[row]
    if tuple(trained) == sound.sampled.responses:
        # Every response was in the tokenizer's own form: one is not, as after a forced token.
        row = int(rows[0])
        trained[row] = words.split_otherwise(trained[row], 1, rng)
    return _of_other_ids(lab, setting, sound, trained, rng)


def split_otherwise(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """Another tokenizer version draws the borders of some neighbours elsewhere: as many ids."""
    sound = pair(lab, setting)
    words = vocabulary(lab.model_folder)
    trained = list(sound.sampled.responses)
    places = round(between(1, 4, severity))
    for row in chosen(len(trained), between(*REACHED, severity), rng):
        trained[row] = words.split_otherwise(trained[row], places, rng)
    return _of_other_ids(lab, setting, sound, trained, rng)


def _of_other_ids(
    lab: Lab,
    setting: Setting,
    sound: Pair,
    trained: Sequence[tuple[int, ...]],
    rng: np.random.Generator,
) -> PushedStep:
    """Index by index, as long as both sides have one; every second time without any ids."""
    lengths = [len(ids) for ids in sound.sampled.responses]
    shared = [min(len(ids), length) for ids, length in zip(trained, lengths, strict=True)]
    cut = _cut(sound.sampled, shared)
    of_trainer = replace(cut, responses=_cut_ids(trained, shared))
    scored = scores(lab, setting, of_trainer)
    if rng.random() < 0.5:
        return lab.step(of_trainer, scored)
    ids = np.array([token for row in cut.responses for token in row], np.int32)
    return lab.step(of_trainer, scored, rollout_token_ids=ids)


def _cut(sampled: Sampled, lengths: Sequence[int]) -> Sampled:
    values = zip(sampled.logprobs, lengths, strict=True)
    return replace(
        sampled,
        responses=_cut_ids(sampled.responses, lengths),
        logprobs=tuple(own[:length] for own, length in values),
    )


def _cut_ids(rows: Sequence[tuple[int, ...]], lengths: Sequence[int]) -> Prompts:
    return tuple(ids[:length] for ids, length in zip(rows, lengths, strict=True))


def last_label(
    lab: Lab,
    severity: float,
    rng: np.random.Generator,
    setting: Setting,
    *,
    of_next_row: bool,
) -> PushedStep:
    """The last label of a row is the next row's first token, or the end of the sequence."""
    sound = pair(lab, setting)
    responses = sound.sampled.responses
    end = vocabulary(lab.model_folder).end
    labels = [
        ids[:-1] + ((responses[(row + 1) % len(responses)][0],) if of_next_row else (end,))
        for row, ids in enumerate(responses)
    ]
    wrong = scores(lab, setting, replace(sound.sampled, responses=tuple(labels)))
    rows = chosen(len(responses), between(*REACHED, severity), rng)
    return lab.step(sound.sampled, replaced_rows(sound, wrong, rows))


INJECTIONS: tuple[Injection, ...] = (
    Injection("off_by_one", "a", "the packed trainer values of a rank slide by one", shifted_pack),
    Injection(
        "off_by_one",
        "b",
        "the engine's values slide within each sequence, or the trainer's labels are not shifted",
        shifted_rows_or_labels,
    ),
    Injection(
        "prompt_response_mispaired", "a", "the trainer's rows are in another order", swapped_rows
    ),
    Injection(
        "prompt_response_mispaired", "b", "responses stand behind another prompt", other_prompts
    ),
    Injection("retokenization_drift", "a", "the text is decoded and encoded again", encoded_again),
    Injection(
        "retokenization_drift",
        "b",
        "some neighbours of tokens are split elsewhere, as many ids",
        split_otherwise,
    ),
    Injection(
        "last_token_label",
        "a",
        "the last label of each row is the first of the next",
        partial(last_label, of_next_row=True),
    ),
    Injection(
        "last_token_label",
        "b",
        "the last label of each row is the end of the sequence",
        partial(last_label, of_next_row=False),
    ),
)
