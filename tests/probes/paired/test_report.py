import numpy as np
import pytest

from driftscope_probes.mismatch import Comparison, compare
from driftscope_probes.paired.report import read_grid

CU_SEQLENS = np.arange(0, 401, 50)
NOISE = np.random.default_rng(0).normal(size=400)


def cell(scale: float) -> Comparison:
    rollout = np.full(400, -2.0)
    return compare(rollout, rollout + scale * NOISE, CU_SEQLENS)


def test_the_quotient_is_that_of_the_two_matched_cells() -> None:
    grid = {("bf16", "bf16"): cell(0.08), ("fp16", "fp16"): cell(0.01), ("fp32", "fp32"): cell(0.0)}
    reading = read_grid(grid, resamples=500)
    abs_diff, kl = reading.figures
    assert abs_diff.value == pytest.approx(8.0)
    # The same noise in every sequence of both cells: joint resampling leaves no spread.
    assert abs_diff.interval == pytest.approx((8.0, 8.0))
    assert kl.value == pytest.approx(64.0, rel=0.05)
    assert "8.0 (8.0 to 8.0) times closer" in reading.sentence
    assert "published: about 8" in reading.sentence


def test_without_intervals_the_quotient_stands_alone() -> None:
    grid = {("bf16", "bf16"): cell(0.08), ("fp16", "fp16"): cell(0.01)}
    reading = read_grid(grid, resamples=0)
    assert reading.figures[0].interval is None
    assert reading.figures[0].undefined
    assert "8.0 times closer" in reading.sentence


def test_other_grids_name_their_extremes() -> None:
    assert "fp32 engine" in read_grid({("fp32", "fp32"): cell(0.1)}, resamples=0).sentence
    two = read_grid({("bf16", "fp32"): cell(0.1), ("fp32", "fp32"): cell(0.001)}, resamples=0)
    assert two.sentence.startswith("The closest cell is fp32 engine against fp32 trainer")
    equal = {("bf16", "bf16"): cell(0.0), ("fp16", "fp16"): cell(0.0)}
    assert "bit for bit" in read_grid(equal, resamples=0).sentence


def test_cells_without_a_number_do_not_break_the_reading() -> None:
    empty = compare(np.full(4, np.nan), np.full(4, -1.0), np.array([0, 4]))
    assert "No cell" in read_grid({("bf16", "bf16"): empty}, resamples=0).sentence
