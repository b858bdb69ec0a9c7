"""What Δ is made of: parts that add up token by token, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from driftscope_probes.paired.parts import Forwards, QuietCell, cell_parts, dropout_sentence
from driftscope_probes.trace import Trace, TraceMeta
from driftscope_probes.trainer.randomness import Rate

TOKENS = 40


def trace(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Trace:
    return Trace(
        token_ids=np.arange(TOKENS, dtype=np.int32),
        logprobs=values.astype(np.float32),
        cu_seqlens=np.array([0, TOKENS], np.int64),
        mask=np.ones(TOKENS, np.bool_),
        meta=TraceMeta("trainer", "m", "fp32", "trainer", "0"),
    )


def made(seed: int, size: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).standard_normal(TOKENS) * size


def test_parts_add_up_and_fractions_to_one() -> None:
    rollout = -2 + made(0, 0.5)
    engine_weights = rollout + made(1, 0.01)
    quiet = engine_weights + made(2, 0.05)
    asked = quiet + made(3, 0.1)
    found = cell_parts(
        "bf16",
        "fp32",
        Forwards(trace(rollout), trace(asked), trace(quiet), trace(engine_weights)),
    )
    assert [part.name for part in found.parts] == ["draw", "weights", "kernels"]
    sides = [trace(side).logprobs.astype(np.float64) for side in (asked, quiet, engine_weights)]
    sides.append(trace(rollout).logprobs.astype(np.float64))
    whole = [float(a - b) for a, b in zip(sides[0], sides[3], strict=True)]
    total = math.fsum(value * value for value in whole)
    for part, (left, right) in zip(found.parts, zip(sides, sides[1:], strict=False), strict=True):
        differences = [float(a - b) for a, b in zip(left, right, strict=True)]
        mean = math.fsum(map(abs, differences)) / TOKENS
        fraction = math.fsum(d * w for d, w in zip(differences, whole, strict=True)) / total
        assert part.abs_diff_mean == pytest.approx(mean, rel=1e-12)
        assert part.fraction == pytest.approx(fraction, rel=1e-9)
    assert math.fsum(part.fraction or 0.0 for part in found.parts) == pytest.approx(1.0)


def test_tokens_that_are_not_finite_take_no_part() -> None:
    rollout, trainer = np.full(TOKENS, -1.0), np.full(TOKENS, -1.5)
    rollout[3], rollout[4], trainer[4] = np.nan, -np.inf, -np.inf
    found = cell_parts("bf16", "bf16", Forwards(trace(rollout), trace(trainer), None, None))
    assert found.abs_diff_mean == 0.5
    assert [(part.name, part.fraction) for part in found.parts] == [("kernels", 1.0)]


def test_equal_sides_have_no_fractions() -> None:
    same = trace(made(0, 1.0))
    found = cell_parts("bf16", "bf16", Forwards(same, same, None, same))
    assert [part.fraction for part in found.parts] == [None, None]
    assert found.abs_diff_mean == 0.0


def quiet_cell(with_it: float, without: float) -> QuietCell:
    return QuietCell(
        engine_dtype="fp32",
        trainer_dtype="fp32",
        abs_diff_mean=with_it,
        comparison={"abs_diff_mean": without},
        diagnosis={},
    )


def test_the_sentence_says_whether_the_draw_is_what_it_is_about() -> None:
    rates = (Rate(field="attn_pdrop", rate=0.1),)
    assert dropout_sentence(rates, [quiet_cell(0.087, 1.1e-7)]) == (
        "The model has dropout (attn 0.1) and the trainer runs in training mode: mean |Δ| 0.087 is "
        "its draw; without it 1.1e-07 (fp32 engine against fp32 trainer)."
    )
    assert "0.2 with its draw, 0.15 without it" in dropout_sentence(rates, [quiet_cell(0.2, 0.15)])
    assert "no dropout field names" in dropout_sentence((), [quiet_cell(0.2, 0.15)])
