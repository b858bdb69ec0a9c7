"""Cells once more with one thing taken away: what the diagnosis is told, where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from driftscope_probes.dtypes import Dtype
from driftscope_probes.engines.rollout import Rollout
from driftscope_probes.models.fetch import resolve
from driftscope_probes.paired.cells import compare_all, dropout_of, side_of, weights_of
from driftscope_probes.paired.request import PairedRequest
from driftscope_probes.paired.sides import Scores, Traces
from driftscope_probes.paired.weights import TrainerWeights
from driftscope_probes.paired.which_side import errors_of, which_sides
from driftscope_probes.trace import Side, Trace, TraceMeta
from driftscope_probes.trainer.randomness import Rate

SEQUENCES, LENGTH = 8, 40
KEY = ("fp32", "fp32")
#: Of two FP32 sides that add in another order.
ROUNDING = 1e-6


def trace(seed: int, size: float, side: Side = "trainer", base: Trace | None = None) -> Trace:
    random = np.random.default_rng(seed)
    tokens = SEQUENCES * LENGTH
    start = -random.gamma(1.0, 1.0, tokens) - 0.01 if base is None else base.logprobs
    moved = start + size * random.standard_normal(tokens) * (1 - np.exp(start))
    return Trace(
        token_ids=np.arange(tokens, dtype=np.int32),
        logprobs=moved.astype(np.float32),
        cu_seqlens=np.arange(0, tokens + 1, LENGTH, dtype=np.int64),
        mask=np.ones(tokens, np.bool_),
        meta=TraceMeta(side, "m", "fp32", "hf", "0", {"temperature": 1.0}),
    )


ROLLOUT = trace(0, 0.0, "rollout")
QUIET = trace(1, ROUNDING, base=ROLLOUT)
DRAWN = trace(2, 0.1, base=QUIET)
RATES = (Rate(field="attn_pdrop", rate=0.1),)


def scores(asked: Trace, quiet: Traces, engine_weights: Traces) -> Scores:
    return Scores({KEY: asked}, quiet, engine_weights, RATES if quiet else (), None, None, 0.0)


def request(**fields: str) -> PairedRequest:
    return PairedRequest(
        model="m", engine_dtypes=["fp32"], trainer_dtypes=["fp32"], resamples=0, **fields
    )


@pytest.fixture
def weights(tiny_llama: Path) -> TrainerWeights:
    return TrainerWeights(resolve(str(tiny_llama)), None)


ROLLOUTS: dict[Dtype, Rollout] = {"fp32": Rollout(ROLLOUT, Path("x"), 0.0, 0.0)}


def test_a_draw_is_told_and_taken_away(weights: TrainerWeights) -> None:
    scored = scores(DRAWN, {KEY: QUIET}, {})
    (cell,) = compare_all(request(), ROLLOUTS, scored, weights, lambda *_: None)
    assert cell.known == {"trainer_dropout": "attn 0.1"} and cell.parts is None
    assert cell.diagnosis.causes[0].name == "dropout_active"
    found = dropout_of([cell], scored, lambda *_: None, 0)
    assert found is not None and found.rates == RATES
    assert found.cells[0].diagnosis["verdict"] == "at_floor"
    expected = np.abs(QUIET.logprobs.astype(np.float64) - ROLLOUT.logprobs).mean()
    assert found.cells[0].abs_diff_mean_without == pytest.approx(expected, rel=1e-12)
    sides = which_sides({KEY: errors_of(ROLLOUT, DRAWN, QUIET)}, resamples=0)
    assert side_of(cell, sides, scored) is None
    assert weights_of(request(), weights.model, weights, [cell]) is None


def test_where_nothing_is_drawn_nothing_is_said(weights: TrainerWeights) -> None:
    scored = scores(QUIET, {}, {})
    (cell,) = compare_all(request(), ROLLOUTS, scored, weights, lambda *_: None)
    assert cell.known == {} and cell.diagnosis.verdict == "at_floor"
    assert dropout_of([cell], scored, lambda *_: None, 0) is None
    sides = which_sides({KEY: errors_of(ROLLOUT, QUIET, QUIET)}, resamples=0)
    assert side_of(cell, sides, scored) is sides[KEY]


def test_other_weights_are_measured_and_told(weights: TrainerWeights) -> None:
    asked = request(trainer_model="other")
    scored = scores(DRAWN, {}, {KEY: QUIET})
    (cell,) = compare_all(asked, ROLLOUTS, scored, weights, lambda *_: None)
    assert float(cell.known["weights_fraction"]) == pytest.approx(1.0, abs=1e-3)
    found = weights_of(asked, weights.model, weights, [cell])
    assert found is not None and found.cells == (cell.parts,)
    assert "different weights" in found.sentence and "path" not in found.trainer
