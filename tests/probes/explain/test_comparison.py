"""Runs that cannot be compared: a side without numbers, and one that does not repeat its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from driftscope_probes.errors import EngineError
from driftscope_probes.explain.comparison import run_passes
from driftscope_probes.explain.sample import Sample
from driftscope_probes.explain.taps import Tap

SAMPLE = Sample(prompts=((1, 2),), responses=((3, 4),))


class _Side:
    """Of a side nothing but its log-probabilities, one list a run."""

    name = "engine"

    def __init__(self, *runs: list[float]) -> None:
        self._runs = list(runs)

    def run(self, sample: Sample, tap: Tap | None) -> NDArray[np.float32]:
        return np.array(self._runs.pop(0), np.float32)


def refused(tmp_path: Path, *runs: list[float]) -> str:
    side: Any = _Side(*runs)
    with pytest.raises(EngineError) as error:
        run_passes(side, side, SAMPLE, tmp_path)
    return f"{error.value.message} {error.value.remedy}"


def test_log_probabilities_that_are_no_numbers_are_said_so(tmp_path: Path) -> None:
    """JSON has no number for what would come of them."""
    said = refused(tmp_path, [-1.0, float("nan")])
    assert "1 of 2 log-probabilities of the engine are no numbers" in said
    assert "overflow" in said


def test_a_side_that_hooks_change_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, [-1.0, -2.0], [-1.0, -2.5])
    assert "other log-probabilities while it is watched: at most 0.5 nats apart" in said
