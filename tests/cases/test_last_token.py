"""A fault at the end of every response, and a shift: told by the distance from the end and by the
offset, never as a rise along the response."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from .policy import analyze, last_tokens, pair, write

GROWS = "what grows with the context"


@pytest.mark.parametrize("every", [1, 2])
def test_only_the_last_token_is_wrong(every: int, tmp_path: Path) -> None:
    """Of all responses, and of half of them."""
    of = pair(15, sequences=32, length=96)
    wrong = last_tokens(of) & (of.sequence % every == 0)
    trainer = np.where(wrong, of.rollout - 13.0, of.trainer)
    printed = analyze(write(tmp_path, of.rollout, trainer, of.limits), every=True)
    end = printed.profile("end")
    assert end["telling"] and (end["bins"][0]["from"], end["bins"][0]["below"]) == (1, 2)
    assert end["bins"][0]["abs_diff_mean"] > 6.0 > 0.1 > end["bins"][1]["abs_diff_mean"]
    assert next(iter(name for name in printed.json["profiles"] if name[:3] == "by_")) == "by_end"
    assert "Where: The last token of each response: mean |Δ| is" in printed.text
    assert GROWS not in printed.every


def test_a_rise_is_called_one(tmp_path: Path) -> None:
    of = pair(16, sequences=32, length=200)
    random = np.random.default_rng(1)
    noise = 0.002 * of.index * random.standard_normal(of.index.size) * (1 - np.exp(of.rollout))
    printed = analyze(write(tmp_path, of.rollout, of.rollout + noise, of.limits))
    assert GROWS in printed.text


def test_a_healthy_step_has_no_place(tmp_path: Path) -> None:
    of = pair(17)
    printed = analyze(write(tmp_path, of.rollout, of.trainer, of.limits), every=True)
    assert "Where:" not in printed.text and GROWS not in printed.every
    assert "Even along the response: no place stands out." in printed.every
    assert printed.json["profiles"]["offsets"]["telling"] is None


@pytest.mark.parametrize("offset", [-3, -2, -1, 1, 2])
def test_an_offset_is_found_with_its_correlation(offset: int, tmp_path: Path) -> None:
    """At offset k the trainer's value at i scores the token at i − k."""
    of = pair(15, sequences=32, length=96)
    printed = analyze(write(tmp_path, of.rollout, np.roll(of.trainer, offset), of.limits))
    scan = printed.json["profiles"]["offsets"]
    assert scan["telling"] == offset
    assert scan["correlation"][str(offset)] > 0.999
    assert abs(scan["correlation"]["0"]) < 0.1
    assert f"follows the rollout's at i{-offset:+d} (offset {offset:+d})" in printed.text
