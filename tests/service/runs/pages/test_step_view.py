"""What the page of a step draws, against the profiles of a report and against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.mismatch.report_profiles import profiles
from driftscope_probes.profiles.coordinate_sums import Row
from driftscope_probes.profiles.step_profiles import ProfileName
from driftscope_probes.tokens import Tokens
from driftscope_service.runs.pages.step_view import StepView, step_plot, view_of
from driftscope_service.runs.pages.token_counts import CELLS, SHOWN


def _arrays(seed: int, sequences: int = 40) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 60, sequences)
    lengths[0] = 5
    tokens = int(lengths.sum())
    rollout = (-random.exponential(0.8, tokens)).astype(np.float32)
    trainer = (rollout + random.normal(0, 0.1, tokens)).astype(np.float32)
    trainer[random.random(tokens) < 0.1] = rollout[random.random(tokens) < 0.1][:1]
    trainer[random.random(tokens) < 0.02] = np.nan
    rollout[random.random(tokens) < 0.01] = -np.inf
    return {
        "rollout": rollout,
        "trainer": trainer,
        "mask": random.random(tokens) < 0.9,
        "cu_seqlens": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    }


def _blocks(arrays: dict[str, Any], size: int) -> list[tuple[Tokens, int]]:
    limits = arrays["cu_seqlens"]
    blocks = []
    for first in range(0, limits.size - 1, size):
        of = limits[first : first + size + 1]
        tokens = slice(int(of[0]), int(of[-1]))
        rollout, trainer, mask = (arrays[name][tokens] for name in ("rollout", "trainer", "mask"))
        blocks.append((Tokens(rollout, trainer, of - of[0], mask), first))
    return blocks


def _view(arrays: dict[str, Any], size: int = 7) -> StepView:
    return view_of(_blocks(arrays, size))


def _rows(view: StepView, name: ProfileName) -> list[Row]:
    found = view.profile(name)
    assert found is not None
    return found.rows


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 50))
def test_blocks_give_what_the_whole_gives(seed: int, size: int) -> None:
    arrays = _arrays(seed)
    parts, whole = _view(arrays, size), _view(arrays, 10_000)
    assert parts.histogram.rows() == whole.histogram.rows()
    assert parts.density.rows() == whole.density.rows()
    found, expected = parts.by_probability.rows(), whole.by_probability.rows()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    for name in ("index", "end"):
        found, expected = _rows(parts, name), _rows(whole, name)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    assert parts.odd == whole.odd
    assert [one.sequence for one in parts.worst.of["largest"]] == [
        one.sequence for one in whole.worst.of["largest"]
    ]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_histogram_and_the_probability_profile_are_those_of_a_report(seed: int) -> None:
    arrays = _arrays(seed)
    view = _view(arrays)
    report = profiles(*(arrays[name] for name in ("rollout", "trainer", "cu_seqlens", "mask")))
    histogram = report.abs_diff_histogram
    for name in ("zero", "below", "above"):
        assert getattr(view.histogram, name) == getattr(histogram, name)
    assert view.histogram.counts.tolist() == histogram.counts.tolist()
    by_probability = report.by_rollout_prob
    assert view.by_probability.counts.tolist() == by_probability.counts.tolist()
    filled = view.by_probability.counts > 0
    mean = view.by_probability.abs_diff[filled] / view.by_probability.counts[filled]
    np.testing.assert_allclose(mean, by_probability.abs_diff_mean[filled], rtol=1e-12)


def test_profile_by_place_and_worst_sequences_against_loops() -> None:
    arrays = _arrays(5)
    view = _view(arrays)
    kept = arrays["mask"] & np.isfinite(arrays["rollout"]) & np.isfinite(arrays["trainer"])
    diff = arrays["trainer"].astype(float) - arrays["rollout"].astype(float)
    limits = arrays["cu_seqlens"]
    at_zero = [
        abs(diff[start])
        for start, end in zip(limits[:-1], limits[1:], strict=True)
        if end > start and kept[start]
    ]
    row = _rows(view, "index")[0]
    assert row[:3] == (0, 1, len(at_zero))
    assert row[3] == pytest.approx(np.mean(at_zero))
    sums = {
        place: diff[start:end][kept[start:end]].sum()
        for place, (start, end) in enumerate(zip(limits[:-1], limits[1:], strict=True))
        if kept[start:end].any()
    }
    expected = sorted(sums, key=lambda place: -abs(sums[place]))[:SHOWN]
    assert [one.sequence for one in view.worst.of["sum"]] == expected
    assert view.worst.of["sum"][0].sum == pytest.approx(sums[expected[0]])
    worst = view.worst.of["largest"][0]
    assert worst.largest == pytest.approx(np.abs(diff[kept]).max())
    bad = (~np.isfinite(diff) | (arrays["trainer"] > 1e-5)) & arrays["mask"]
    assert worst.odd == bad[limits[worst.sequence] : limits[worst.sequence + 1]].sum()
    assert abs(diff[limits[worst.sequence] + worst.largest_at]) == worst.largest


def test_density_counts_every_token_once_and_takes_the_outliers_in() -> None:
    arrays = _arrays(6)
    arrays["rollout"][:3] = [-300.0, 0.0, 2.0]
    arrays["trainer"][:3] = [-0.1, -90.0, 0.5]
    arrays["mask"][:3] = True
    view = _view(arrays)
    rows = view.density.rows()
    assert sum(row[2] for row in rows) == sum(row[2] for row in _rows(view, "index"))
    assert len(rows) <= CELLS * CELLS
    assert {(-16.0, -0.25), (-0.25, -16.0), (-0.25, -0.25)} <= {row[:2] for row in rows}
    by_rollout = view.density.by_rollout()
    assert sum(row[1] for row in by_rollout) == sum(row[2] for row in rows)
    assert sum(row[3] for row in by_rollout) >= 2


def test_a_step_where_no_token_counts_has_empty_plots() -> None:
    arrays = _arrays(7)
    arrays["mask"][:] = False
    view = _view(arrays)
    for plot in ("histogram", "density", "position", "end", "probability"):
        data = step_plot(view, plot)
        assert data is not None
        assert data.rows == [] and "No token" in data.about["empty"]
    assert view.worst.of["mean"] == [] and view.odd.count == 0
    assert step_plot(view, "absolute") is None
