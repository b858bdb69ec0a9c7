"""Shares: only part of a step is wrong, the part of one rank, one replica or some tokens.

In: a lab. Out: injections of corrupt ranks, replicas that differ, speculative decoding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.drill.case import Injection, Setting
from driftscope_probes.diagnosis.drill.damage import noted, scored_by, strength
from driftscope_probes.diagnosis.drill.faults.batch import neighbour_row
from driftscope_probes.diagnosis.drill.faults.weights import (
    FORMATS,
    ROWS_BOUNDS,
    STEP_BOUNDS,
    by_versions,
    lose_rows,
    quantise,
)
from driftscope_probes.diagnosis.drill.lab import GROUP, Lab, Sampled, Scored
from driftscope_probes.diagnosis.drill.pool import between, logits_of, pair, scores
from driftscope_probes.diagnosis.drill.updates import displacement, move
from driftscope_probes.push.pushed_step import PushedStep

#: Half the frameworks push their engine's settings.
PUSHED = 0.5
RANKS, REPLICAS = (2, 4, 8), (2, 3, 4)


def _per_token(values: NDArray[Any], sampled: Sampled) -> NDArray[Any]:
    return np.repeat(values, [len(response) for response in sampled.responses])


def _count(choices: tuple[int, ...], sequences: int, rng: np.random.Generator) -> int:
    """At least two sequences each."""
    fitting = [count for count in choices if 2 * count <= sequences]
    return int(rng.choice(fitting))


def _mixed(healthy: Scored, other: Scored, chosen: NDArray[np.bool_]) -> Scored:
    """`chosen`: [tokens] where the other one holds."""
    return Scored(
        np.where(chosen, other.logprobs, healthy.logprobs),
        np.where(chosen, other.entropy, healthy.entropy),
    )


def _sometimes(name: str, labels: NDArray[Any], rng: np.random.Generator) -> dict[str, Any]:
    """Half the frameworks say which rank or replica a sequence belongs to."""
    return {name: labels.astype(np.int32)} if rng.random() < 0.5 else {}


def _corrupt_rank(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """One rank of the trainer, a contiguous share, lost part of a tensor."""
    ranks = _count(RANKS, setting.sequences, rng)
    rank = np.arange(setting.sequences) * ranks // setting.sequences
    seed = int(rng.integers(2**31))
    dose = strength(lab, setting, lose_rows, severity, seed, ROWS_BOUNDS)
    healthy = pair(lab, setting)
    damaged = lose_rows(lab.trainer(fresh=True), dose, seed)
    other = scored_by(lab, setting, healthy.sampled, damaged)
    bad = _per_token(rank == rng.integers(ranks), healthy.sampled)
    extras = _sometimes("rank", rank, rng)
    return lab.step(healthy.sampled, _mixed(healthy.scored, other, bad), **extras)


def _rank_left_behind(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """One rank missed the last updates; ranks take sequences in turn."""
    ranks = _count(RANKS, setting.sequences, rng)
    rank = np.arange(setting.sequences) % ranks
    difference = displacement(lab, setting, "adam")
    dose = strength(
        lab, setting, lambda model, by, _: move(model, difference, -by), severity, 0, STEP_BOUNDS
    )
    healthy = pair(lab, setting)
    behind = move(lab.trainer(fresh=True), difference, -dose)
    other = scored_by(lab, setting, healthy.sampled, behind)
    bad = _per_token(rank == rng.integers(ranks), healthy.sampled)
    extras = _sometimes("rank", rank, rng)
    return lab.step(healthy.sampled, _mixed(healthy.scored, other, bad), **extras)


def _stale_replica(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """One replica missed the last updates; a prompt's group stays on one replica."""
    groups = -(-setting.sequences // GROUP)
    replicas = min(_count(REPLICAS, setting.sequences, rng), groups)
    replica = np.repeat(np.arange(groups) % replicas, GROUP)[: setting.sequences]
    difference = displacement(lab, setting, "adam")
    dose = strength(
        lab, setting, lambda model, by, _: move(model, difference, -by), severity, 0, STEP_BOUNDS
    )
    bad = (replica == rng.integers(replicas)).astype(np.int64)
    behind = move(lab.engine(fresh=True), difference, -dose)
    sampled = by_versions(lab, setting, [None, behind], bad)
    return lab.step(sampled, scores(lab, setting, sampled), **_sometimes("replica", replica, rng))


def _quantised_replica(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """One replica runs quantised weights; sequences go to replicas in turn."""
    replicas = _count(REPLICAS, setting.sequences, rng)
    replica = np.arange(setting.sequences) % replicas
    bad = (replica == rng.integers(replicas)).astype(np.int64)
    form = FORMATS[min(int(severity * len(FORMATS)), len(FORMATS) - 1)]
    engine = quantise(lab.engine(fresh=True), form)
    sampled = by_versions(lab, setting, [None, engine], bad)
    return lab.step(sampled, scores(lab, setting, sampled), **_sometimes("replica", replica, rng))


# Speculative decoding

MOST_DRAFTED = 7  # tokens that a draft proposes at once; vLLM's examples take 2 to 5


def _draft_at_the_end(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The last tokens of each response carry the draft model's log-probabilities."""
    healthy = pair(lab, setting)
    difference = displacement(lab, setting, "adam")
    # A draft is another model: coarser than most faults of weights.
    dose = strength(
        lab,
        setting,
        lambda model, by, _: move(model, difference, by),
        between(0.5, 1.0, severity),
        0,
        STEP_BOUNDS,
    )
    draft = move(lab.engine(fresh=True), difference, dose)
    drafted = scored_by(lab, setting, healthy.sampled, draft).logprobs
    last = round(between(2, MOST_DRAFTED, severity))
    lengths = [len(response) for response in healthy.sampled.responses]
    parts = np.split(drafted, np.cumsum(lengths)[:-1])
    logprobs = tuple(
        np.concatenate([own[: max(0, len(own) - last)], other[max(0, len(own) - last) :]])
        for own, other in zip(healthy.sampled.logprobs, parts, strict=True)
    )
    return lab.step(replace(healthy.sampled, logprobs=logprobs), healthy.scored)


def _shifted_drafts(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """One token of each verified window carries the row of the token before it: the window's rows
    were counted without its first."""
    healthy = pair(lab, setting)
    sampled = healthy.sampled
    window = round(between(16, 3, severity))
    rows = logits_of(lab, lab.engine(), sampled, setting.microbatch)
    temperature = sampled.sampling.temperature if sampled.processed else 1.0
    logprobs = []
    for own, reported, response in zip(rows, sampled.logprobs, sampled.responses, strict=True):
        wrong = neighbour_row(own, response, -1, temperature).numpy()
        hit = np.arange(len(response)) % window == window - 1
        logprobs.append(np.where(hit, wrong, reported).astype(np.float32))
    return lab.step(replace(sampled, logprobs=tuple(logprobs)), healthy.scored)


INJECTIONS: tuple[Injection, ...] = (
    Injection(
        "rank_local_corruption",
        "a",
        "one trainer rank, a contiguous share, lost rows of a tensor",
        _corrupt_rank,
    ),
    Injection(
        "rank_local_corruption",
        "b",
        "one trainer rank of several that take turns missed the last updates",
        _rank_left_behind,
    ),
    Injection("replica_differs", "a", "one engine replica missed the last updates", _stale_replica),
    Injection(
        "replica_differs", "b", "one engine replica runs quantised weights", _quantised_replica
    ),
    noted(
        Injection(
            "spec_decode_logprobs",
            "a",
            "the last tokens carry the draft model's log-probabilities",
            _draft_at_the_end,
        ),
        PUSHED,
        num_speculative_tokens="5",
    ),
    noted(
        Injection(
            "spec_decode_logprobs",
            "b",
            "one token of each verified window carries its neighbour's row",
            _shifted_drafts,
        ),
        PUSHED,
        num_speculative_tokens="5",
    ),
)
