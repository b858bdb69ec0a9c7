"""Expert routing of both sides: choices that differ, what that does to |Δ|, what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from .policy import Pair, analyze, pair, write

LAYERS, CHOSEN = 8, 2


def _routes(of: Pair, experts: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Of the rollout, of the trainer, and [tokens, layers] where they differ."""
    random = np.random.default_rng(2)
    scores = random.random((of.rollout.size, LAYERS, experts))
    engine = np.argpartition(scores, CHOSEN, axis=-1)[..., :CHOSEN]
    flips = random.random((of.rollout.size, LAYERS)) < 0.1
    trainer = engine.copy()
    other = (engine[..., 0] + 1) % experts
    other = np.where(other == engine[..., 1], (other + 1) % experts, other)
    trainer[..., 0] = np.where(flips, other, engine[..., 0])
    return engine, trainer, flips


@pytest.mark.parametrize(
    ("dtype", "experts"), [("uint8", 64), ("int16", 512), ("uint16", 512), ("int32", 512)]
)
def test_choices_that_differ_and_what_they_cost(dtype: str, experts: int, tmp_path: Path) -> None:
    of = pair(16, sequences=16, length=60)
    engine, routed, flips = _routes(of, experts)
    flipped = flips.any(1)
    trainer = np.where(flipped, of.rollout + 10 * (of.trainer - of.rollout), of.trainer)
    printed = analyze(
        write(
            tmp_path,
            of.rollout,
            trainer,
            of.limits,
            routed_experts=engine.astype(dtype),
            trainer_routed_experts=routed.astype(dtype),
        )
    )
    agreement = printed.json["routing"]["agreement"]
    assert agreement["choices_flipped"] == pytest.approx(flips.mean())
    assert agreement["tokens_flipped"] == pytest.approx(flipped.mean())
    size = np.abs(trainer - of.rollout)
    for group, chosen in (("flipped", flipped), ("agreeing", ~flipped)):
        assert agreement[group]["abs_diff_mean"] == pytest.approx(size[chosen].mean(), rel=1e-3)
    assert f"Experts: {100 * flips.mean():.3g}% of the choices differ" in printed.text
    assert "Used by nothing" not in printed.text


def test_another_order_is_no_difference(tmp_path: Path) -> None:
    of = pair(16, sequences=16, length=60)
    engine, _, _ = _routes(of, 64)
    printed = analyze(
        write(
            tmp_path,
            of.rollout,
            of.trainer,
            of.limits,
            routed_experts=engine.astype(np.uint8),
            trainer_routed_experts=engine[..., ::-1].astype(np.uint8),
        )
    )
    assert "Experts: 0% of the choices differ" in printed.text


def test_a_missing_route_is_left_out_and_counted(tmp_path: Path) -> None:
    of = pair(16, sequences=16, length=60)
    engine, routed, flips = _routes(of, 64)
    engine, routed = engine.astype(np.int16), routed.astype(np.int16)
    ends = of.limits[1:] - 1
    engine[ends] = -1
    printed = analyze(
        write(
            tmp_path,
            of.rollout,
            of.trainer,
            of.limits,
            routed_experts=engine,
            trainer_routed_experts=routed,
        )
    )
    kept = np.ones(of.rollout.size, np.bool_)
    kept[ends] = False
    agreement = printed.json["routing"]["agreement"]
    assert agreement["tokens_without_route"] == 16
    assert agreement["choices_flipped"] == pytest.approx(flips[kept].mean())
    assert "Left out: 16 tokens for which a side recorded no route." in printed.text
