"""Sums by a coordinate against loops, offsets against numpy, and what a shape is called."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.profiles.coordinate_sums import CoordinateSums
from driftscope_probes.profiles.offset_scan import OFFSETS, OffsetScan
from driftscope_probes.profiles.shapes import label_shape, place_shape
from driftscope_probes.profiles.step_profiles import ProfileName, StepProfiles, step_profiles
from driftscope_probes.tokens import Extras, Tokens

NONE = np.zeros(0, np.int64)


def sums_of(coordinate: np.ndarray, diff: np.ndarray, first: int = 0) -> CoordinateSums:
    found = CoordinateSums(first)
    size = np.log(np.maximum(np.abs(diff), 1e-7))
    found.add(coordinate, diff, size, np.ones(diff.size))
    return found


def step(seed: int, sequences: int = 20) -> Tokens:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 60, sequences)
    rollout = -random.exponential(1.0, int(lengths.sum()))
    trainer = rollout + random.normal(0, 0.05, rollout.size)
    trainer[random.random(rollout.size) < 0.02] = np.nan
    return Tokens(
        rollout.astype(np.float32),
        trainer.astype(np.float32),
        np.concatenate([[0], np.cumsum(lengths)]),
        random.random(rollout.size) < 0.9,
        Extras(
            turn_ids=random.integers(-1, 4, rollout.size),
            rank=random.integers(0, 3, sequences),
            position_ids=random.integers(0, 900, rollout.size),
        ),
    )


@pytest.mark.parametrize("seed", range(5))
def test_rows_against_loops(seed: int) -> None:
    tokens = step(seed)
    profiles = {one.name: one for one in step_profiles(tokens).profiles()}
    assert set(profiles) == {"index", "end", "position", "turn", "rank"}
    diff = tokens.trainer.astype(float) - tokens.rollout.astype(float)
    kept = np.isfinite(diff) & tokens.takes_part
    sequence = np.repeat(np.arange(tokens.sequences), np.diff(tokens.cu_seqlens))
    last = {
        one: np.flatnonzero(tokens.takes_part & (sequence == one)).max(initial=-1)
        for one in range(tokens.sequences)
    }
    ends = np.array([last[one] for one in sequence]) - np.arange(diff.size) + 1
    extras = tokens.extras
    assert extras.turn_ids is not None and extras.rank is not None
    assert extras.position_ids is not None
    coordinates: dict[ProfileName, np.ndarray] = {
        "index": np.arange(diff.size) - tokens.cu_seqlens[:-1][sequence],
        "end": ends,
        "position": extras.position_ids,
        "turn": extras.turn_ids,
        "rank": extras.rank[sequence],
    }
    for name, coordinate in coordinates.items():
        rows = profiles[name].rows
        assert sum(row[2] for row in rows) == kept.sum()
        for low, below, count, mean, signed, largest in rows:
            inside = diff[kept & (coordinate >= low) & (coordinate < below)]
            assert count == inside.size
            expected = (np.abs(inside).mean(), inside.mean(), np.abs(inside).max())
            assert (mean, signed, largest) == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 19))
def test_two_blocks_give_what_the_whole_gives(seed: int, cut: int) -> None:
    tokens = step(seed)
    at = int(tokens.cu_seqlens[cut])
    parts = StepProfiles()
    for first, last in ((0, cut), (cut, tokens.sequences)):
        rows = slice(int(tokens.cu_seqlens[first]), int(tokens.cu_seqlens[last]))
        extras = tokens.extras
        assert extras.turn_ids is not None and extras.rank is not None
        assert extras.position_ids is not None and tokens.mask is not None
        limits = tokens.cu_seqlens[first : last + 1] - (at if first else 0)
        of_part = Extras(
            turn_ids=extras.turn_ids[rows],
            position_ids=extras.position_ids[rows],
            rank=extras.rank[first:last],
        )
        parts.add(
            Tokens(tokens.rollout[rows], tokens.trainer[rows], limits, tokens.mask[rows], of_part)
        )
    whole = step_profiles(tokens)
    for one, other in zip(parts.profiles(), whole.profiles(), strict=True):
        assert one.name == other.name and one.shape.kind == other.shape.kind
        np.testing.assert_allclose(one.rows, other.rows, rtol=1e-9)
    np.testing.assert_allclose(parts.offsets.sums, whole.offsets.sums, rtol=1e-9)


def test_correlations_are_numpys() -> None:
    tokens = step(3)
    scan = OffsetScan()
    scan.add(tokens)
    sequence = np.repeat(np.arange(tokens.sequences), np.diff(tokens.cu_seqlens))
    good = tokens.takes_part & np.isfinite(tokens.trainer)
    rows = np.arange(good.size)
    for offset in OFFSETS:
        here = rows[(rows - offset >= 0) & (rows - offset < good.size)]
        there = here - offset
        pair = good[here] & tokens.takes_part[there] & (sequence[here] == sequence[there])
        x, y = (
            np.exp(np.minimum(tokens.trainer[here[pair]], 0)),
            np.exp(tokens.rollout[there[pair]]),
        )
        expected = np.corrcoef(x.astype(float), y.astype(float))[0, 1]
        assert scan.correlations()[offset] == pytest.approx(expected, abs=1e-6)


def noise(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.03, size)


@pytest.mark.parametrize("seed", range(20))
def test_rounding_has_no_shape(seed: int) -> None:
    index = np.tile(np.arange(100), 30)
    sums = sums_of(index, noise(seed, index.size))
    assert place_shape("index", sums, NONE, 0).kind == "even"
    assert (
        place_shape("end", sums_of(index + 1, noise(seed, index.size), 1), NONE, 0).kind == "even"
    )
    assert label_shape("rank", sums_of(index % 4, noise(seed, index.size))).kind == "even"


def test_shapes_by_name() -> None:
    index = np.tile(np.arange(100), 30)
    plain = noise(1, index.size)
    jump = place_shape("index", sums_of(index, plain * np.where(index >= 40, 10, 1)), NONE, 0)
    assert (jump.kind, jump.at) == ("from", 40) and jump.sentence.startswith("From index 40 on")
    early = place_shape("index", sums_of(index, plain * np.where(index <= 2, 20, 1)), NONE, 0)
    assert (early.kind, early.at) == ("up_to", 2)
    rise = place_shape("index", sums_of(index, plain * (1 + index / 5)), NONE, 0)
    assert rise.kind == "grows" and "what grows with the context" in rise.sentence
    end = sums_of(100 - index, plain * np.where(index == 99, 200, 1), 1)
    last = place_shape("end", end, NONE, 0)
    assert last.kind == "last" and last.sentence.startswith("The last token of each response")
    label = label_shape("replica", sums_of(index % 4, plain * np.where(index % 4 == 2, 8, 1)))
    assert label.sentence.startswith("Replica 2: mean |Δ| is")
    # The index follows where the end says more, and says so.
    late = place_shape("index", sums_of(index, plain * np.where(index == 99, 200, 1)), NONE, 0)
    assert "say more" in late.beside(last).sentence or late.gain > last.gain / 1.1


def test_equal_bits_before_a_place_are_said() -> None:
    index = np.tile(np.arange(100), 30)
    diff = np.where(index >= 40, noise(1, index.size), 0.0)
    shape = place_shape("position", sums_of(index, diff), np.array([40, 43]), 0)
    assert shape.sentence.endswith(
        "No bit differs before absolute position 40 (40 to 43 over the sequences)."
    )
    assert "No bit" not in place_shape("position", sums_of(index, diff), np.array([5]), 0).sentence
