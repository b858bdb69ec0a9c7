"""Placeholders where the engine sampled nothing: a constant in the tool's turn, a 0 at the ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from .policy import Pair, analyze, last_tokens, pair, write


def with_a_tool(seed: int = 13) -> tuple[Pair, NDArray[np.bool_], NDArray[np.int32]]:
    """A pair whose middle sixth is a tool's output, unlikely to the trainer; turns 0, 1, 2."""
    of = pair(seed)
    lengths = np.diff(of.limits)[of.sequence]
    tool = (of.index >= lengths // 3) & (of.index < lengths // 2)
    turns = np.where(tool, 1, np.where(of.index < lengths // 3, 0, 2)).astype(np.int32)
    random = np.random.default_rng(5)
    trainer = np.where(tool, of.trainer - random.exponential(1.5, tool.size) - 0.1, of.trainer)
    return of.changed(trainer=trainer), tool, turns


@pytest.mark.parametrize(
    ("constant", "kind", "words"),
    [
        (-9999.0, "sentinel", "one constant, -9999.0, and no log-probability"),
        (-1e4, "sentinel", "one constant, -10000.0, and no log-probability"),
        (-1e9, "sentinel", "one constant, -1000000000.0, and no log-probability"),
        (-100.0, "sentinel", "one constant, -100.0, and no log-probability"),
        (1.0, "constant", "one constant, 1.0"),
        (-20.0, "constant", "one constant, -20.0"),
        (0.0, "zero", "exactly 0 where the trainer is not"),
    ],
)
def test_a_constant_in_the_tools_turn_is_counted_named_and_placed(
    constant: float, kind: str, words: str, tmp_path: Path
) -> None:
    of, tool, turns = with_a_tool()
    rollout = np.where(tool, constant, of.rollout)
    printed = analyze(write(tmp_path, rollout, of.trainer, of.limits, turn_ids=turns))
    (odd,) = printed.odd
    assert (odd["side"], odd["kind"], odd["value"]) == ("rollout", kind, constant)
    assert odd["count"] == tool.sum()
    assert odd["place"]["shape"] == "turn" and odd["place"]["turns"] == [1]
    first = int(np.flatnonzero(tool)[0])
    assert (odd["place"]["first_sequence"], odd["place"]["first_index"]) == (0, first)
    assert f"{tool.sum()} rollout values are {words}" in printed.text
    assert "all of turn 1, in all 24 sequences" in printed.text
    healthy = np.abs(of.trainer - of.rollout)[~tool].mean()
    left = printed.json["hygiene"]["without_them"]
    assert left["tokens"] == (~tool).sum()
    assert left["abs_diff_mean"] == pytest.approx(healthy, rel=1e-4)
    assert "Bug-like" in printed.text
    turn = printed.profile("turn")
    assert [row["tokens"] for row in turn["bins"]] == np.bincount(turns).tolist()
    assert turn["sentence"].startswith("Turn 1: mean |Δ| is")


def test_flat_counts_keep_the_kinds_apart(tmp_path: Path) -> None:
    of, tool, turns = with_a_tool()
    zeros = analyze(
        write(tmp_path, np.where(tool, 0.0, of.rollout), of.trainer, of.limits, turn_ids=turns)
    ).comparison
    assert zeros["rollout_zero_unmatched"] == zeros["rollout_zero"] == tool.sum()
    assert zeros["rollout_sentinel"] == zeros["rollout_nonfinite"] == 0
    floor = analyze(
        write(tmp_path, np.where(tool, -9999.0, of.rollout), of.trainer, of.limits)
    ).comparison
    assert floor["rollout_sentinel"] == tool.sum()
    assert floor["rollout_zero_unmatched"] == floor["trainer_sentinel"] == 0


def test_a_certain_token_is_no_placeholder(tmp_path: Path) -> None:
    of = pair(3)
    certain = np.zeros(of.rollout.size, np.bool_)
    certain[::7] = True
    rollout = np.where(certain, 0.0, of.rollout)
    trainer = np.where(certain, np.where(of.index % 2 == 0, 0.0, -1e-7), of.trainer)
    printed = analyze(write(tmp_path, rollout, trainer, of.limits))
    assert printed.comparison["rollout_zero"] == certain.sum()
    assert printed.comparison["rollout_zero_unmatched"] == 0
    assert printed.odd == [] and "Values:" not in printed.text


def _ends(of: Pair) -> dict[str, tuple[NDArray[np.bool_], str]]:
    first = np.zeros(of.rollout.size, np.bool_)
    first[of.limits[:-1]] = True
    half = last_tokens(of) & (of.sequence % 2 == 0)
    return {
        "last": (last_tokens(of), "the last token of every sequence"),
        "first": (first, "the first token of every sequence"),
        "half": (half, "the last token of 12 of 24 sequences"),
    }


@pytest.mark.parametrize("which", ["last", "first", "half"])
def test_a_zero_at_one_place_of_each_sequence_is_placed(which: str, tmp_path: Path) -> None:
    of = pair(13)
    chosen, words = _ends(of)[which]
    trainer = np.where(chosen, np.minimum(of.trainer, -1.0), of.trainer)
    printed = analyze(write(tmp_path, np.where(chosen, 0.0, of.rollout), trainer, of.limits))
    (odd,) = printed.odd
    assert odd["kind"] == "zero" and odd["count"] == chosen.sum()
    assert words in printed.text


@pytest.mark.parametrize("value", [0.0, np.nan, -9999.0])
def test_what_is_masked_has_no_effect(value: float, tmp_path: Path) -> None:
    of, tool, turns = with_a_tool()
    printed = analyze(
        write(
            tmp_path,
            np.where(tool, value, of.rollout),
            of.trainer,
            of.limits,
            turn_ids=turns,
            mask=(~tool).astype(np.uint8),
        )
    )
    assert printed.odd == [] and "At the floor" in printed.text
    counts: dict[str, Any] = printed.comparison
    assert counts["masked_tokens"] == tool.sum()
    assert not any(
        counts[f"rollout_{kind}"] for kind in ("nan", "sentinel", "zero_unmatched", "nonfinite")
    )
