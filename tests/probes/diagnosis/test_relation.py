"""Shifts, swaps, slopes, temperatures and grids, against planted ones."""

from __future__ import annotations

import numpy as np
import pytest

from driftscope_probes.diagnosis.floor import prior_floor
from driftscope_probes.diagnosis.relation import Relation, theil_slope
from driftscope_probes.diagnosis.signals import Signals
from driftscope_probes.mismatch.stored_bits import significant_bits

from .made_up_policy import MadeUpPolicy, Pair

FLOOR = prior_floor("bf16", "bf16")


def relation(pair: Pair) -> Relation:
    return Relation(Signals(pair.observed(), FLOOR))


@pytest.mark.parametrize("lag", [-2, -1, 1, 3])
def test_a_shift_and_its_lag(lag: int) -> None:
    pair = MadeUpPolicy(1).pair()
    found = relation(pair.changed(trainer=np.roll(pair.trainer, -lag))).shift
    assert found is not None and found.lag == lag
    assert found.correlation > 0.95 and abs(found.in_place) < 0.5


def test_in_place_there_is_no_shift_and_no_swap() -> None:
    found = relation(MadeUpPolicy(1).pair())
    assert found.shift is None and found.swapped.shape == (0, 2)


def test_swapped_rows_find_each_other() -> None:
    pair = MadeUpPolicy(2, sequences=12).pair()
    lengths = np.diff(pair.limits)
    one, two = 3, 7
    count = int(min(lengths[one], lengths[two]))
    trainer = pair.trainer.copy()
    first = slice(pair.limits[one], pair.limits[one] + count)
    second = slice(pair.limits[two], pair.limits[two] + count)
    trainer[first], trainer[second] = pair.trainer[second], pair.trainer[first]
    assert relation(pair.changed(trainer=trainer)).swapped.tolist() == [[one, two], [two, one]]


@pytest.mark.parametrize("temperature", [0.6, 0.8, 1.3])
def test_the_temperature_is_estimated(temperature: float) -> None:
    """The engine reports at a temperature, the trainer does not: logits times `temperature`."""
    found = relation(MadeUpPolicy(3, sequences=80, temperature=temperature).pair()).scaled
    assert found is not None
    assert found.power == pytest.approx(temperature, rel=0.15)
    assert found.purity > 0.9 and found.direction == (1.0 if temperature > 1 else -1.0)
    assert found.explained > 0.75


def test_a_slope_through_the_origin_leaves_rounding() -> None:
    pair = MadeUpPolicy(4).pair()
    slope, left, before = relation(pair.changed(rollout=pair.rollout / 0.7)).origin_line or (
        0,
        1,
        1,
    )
    assert slope == pytest.approx(0.7, abs=0.01) and left < 0.2 * before


def test_stored_bits() -> None:
    values = np.random.default_rng(0).exponential(1.0, 500).astype(np.float32).astype(np.float64)
    assert significant_bits(-values) == 24
    assert significant_bits(-values.astype(np.float16).astype(np.float64)) == 11
    mantissa, exponent = np.frexp(values)
    assert significant_bits(-np.ldexp(np.round(mantissa * 256) / 256, exponent)) == 8


def test_the_slope_survives_wild_pairs() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(600)
    y = 1.7 * x + 0.1 * rng.standard_normal(600)
    y[::5] += 40 * rng.standard_normal(120)
    assert theil_slope(x, y) == pytest.approx(1.7, abs=0.1)
