"""Where it sits: planted places are found, and chance makes none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from driftscope_probes.diagnosis.floor import prior_floor
from driftscope_probes.diagnosis.places import SMALLEST_GAIN, Places
from driftscope_probes.diagnosis.signals import Signals
from driftscope_probes.diagnosis.split import split_of

from .faults import with_noise
from .made_up_policy import MadeUpPolicy, Pair

FLOOR = prior_floor("bf16", "bf16")


def places(pair: Pair) -> Places:
    return Places(Signals(pair.observed(), FLOOR))


@pytest.mark.parametrize("seed", range(10))
def test_chance_makes_no_place(seed: int) -> None:
    found = places(MadeUpPolicy(seed, sequences=40).pair())
    for split in (found.onset, found.onset_position, found.ends, found.block, found.periodic):
        assert split is None
    assert found.two_groups is None or found.two_groups.contrast < 1.0


def test_a_split_gains_what_its_means_explain() -> None:
    body = places(MadeUpPolicy(6).pair()).body
    dirty = np.arange(body.tokens) % 3 == 0
    size = body.size + 2.0 * dirty
    moved = replace(body, size=size)
    split = split_of(moved, dirty)
    assert split is not None
    one, two = size[dirty], size[~dirty]
    within = (one.var() * one.size + two.var() * two.size) / size.size
    explained = (one.mean() - two.mean()) ** 2 * one.size * two.size / size.size
    assert split.gain == pytest.approx(explained / within)
    assert split_of(moved, ~dirty) is None, "the other part differs less"


def test_an_onset_is_found_to_the_token() -> None:
    policy = MadeUpPolicy(1, length=120)
    pair = policy.pair()
    found = places(with_noise(policy, pair, 0.6 * (pair.positions >= 97)))
    assert found.onset_position is not None and found.onset is not None
    assert abs(found.onset_position.at - 97) <= 1
    assert found.onset_position.gain > found.onset.gain > SMALLEST_GAIN
    assert found.onset_position.clean_sigma < 0.1 < found.onset_position.dirty_sigma


def test_last_tokens_are_counted() -> None:
    policy = MadeUpPolicy(2)
    pair = policy.pair()
    from_end = np.repeat(pair.limits[1:], np.diff(pair.limits)) - np.arange(pair.rollout.size)
    found = places(with_noise(policy, pair, 1.5 * (from_end <= 6)))
    assert found.ends is not None and abs(found.ends.at - 6) <= 1


def test_sequences_in_two_groups_in_a_block_and_in_a_period() -> None:
    policy = MadeUpPolicy(3, sequences=40)
    pair = policy.pair()
    block = places(with_noise(policy, pair, 0.8 * ((pair.sequence // 10) == 2)))
    assert np.flatnonzero(block.dirty_sequences).tolist() == list(range(20, 30))
    assert block.dirty_runs == 1 and block.two_kinds > 0.8
    assert block.block is not None and block.block.at == 20
    period = places(with_noise(policy, pair, 0.8 * (pair.sequence % 5 == 3)))
    assert period.periodic is not None and period.periodic.at == 5
    assert period.dirty_runs == 8


def test_each_sequence_has_its_own_onset_or_fall() -> None:
    policy = MadeUpPolicy(4, sequences=30)
    pair = policy.pair()
    start = policy.rng.integers(20, 50, 30)
    after = pair.index >= start[pair.sequence]
    rising = places(with_noise(policy, pair, 0.8 * after)).own_onsets
    falling = places(with_noise(policy, pair, 0.8 * ~after)).own_falls
    for found in (rising, falling):
        assert found is not None and found[1].size > 20


def test_wild_tokens_lie_anywhere_or_not() -> None:
    policy = MadeUpPolicy(5)
    pair = policy.pair()
    anywhere = places(with_noise(policy, pair, 3.0 * (policy.rng.random(pair.rollout.size) < 0.03)))
    assert anywhere.adjacency[0] - anywhere.adjacency[1] < 0.2
    assert anywhere.wild_structure < 5
    runs = places(with_noise(policy, pair, 3.0 * ((pair.index // 10) % 5 == 2)))
    assert runs.adjacency[0] > 0.5
