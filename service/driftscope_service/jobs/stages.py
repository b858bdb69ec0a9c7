"""What a job did and when: a line per stage in its folder, kept when the job is over.

A later job of the same kind takes its estimate from them.
"""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from driftscope_probes.progress import Progress, Told

STAGES_NAME: Final = "stages.jsonl"
#: Jobs of the past that an estimate is the median of.
MOST_LIKE: Final = 5
#: Below it the part that is done says too little: with vLLM a quarter is imports and loading, at
#: whatever speed the disk has.
LEAST_FRACTION: Final = 0.3
#: Of what a probe tells beside its progress: why it does what it does, and what came of it.
WHY, FOUND = "why", "found"
#: Lines of one job that a page shows and an estimate reads; a night has one per item.
MOST_STAGES: Final = 400
_log = logging.getLogger("driftscope")


@dataclass(frozen=True, slots=True)
class Stage:
    at_s: float  # since the process of the probe was started
    stage: str
    detail: str
    fraction: float  # of the whole job, when it began
    why: str = ""  # why it is done, where the probe says so
    found: str = ""  # what came of it, told when it was done


class StageLog:
    """`note` from the thread that reads the probe."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = folder / STAGES_NAME
        self._clock = clock
        self._began = clock()
        self._last: str | None = None

    def note(self, progress: Progress) -> None:
        """Writes nothing while the stage stays the same, but for what came of it."""
        told: Mapping[str, Any] = progress.told if isinstance(progress, Told) else {}
        if progress.stage != self._last:
            self._last = progress.stage
            self._write(
                {
                    "at_s": round(self._clock() - self._began, 3),
                    **{"stage": progress.stage, "detail": progress.detail},
                    "fraction": progress.fraction,
                    **({"why": str(told[WHY])} if WHY in told else {}),
                }
            )
        if FOUND in told:
            self._write({FOUND: str(told[FOUND])})

    def _write(self, fields: Mapping[str, Any]) -> None:
        line = json.dumps(fields)
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            # A probe of an hour must not fail because its stages could not be noted.
            _log.warning("a stage was not noted: %s", error)


def read_stages(folder: Path) -> tuple[Stage, ...]:
    """Empty where none were noted; the last ones of very many."""
    try:
        lines = (folder / STAGES_NAME).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ()
    stages: list[Stage] = []
    for line in lines[-MOST_STAGES:]:
        fields = _fields(line)
        if fields.keys() == {FOUND}:
            if stages:
                stages[-1] = replace(stages[-1], found=fields[FOUND])
            continue
        try:
            stages.append(Stage(**fields))
        except TypeError:
            continue  # a half line
    return tuple(stages)


def _fields(line: str) -> dict[str, Any]:
    """Empty for the half line of a service that was killed as it wrote."""
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


@dataclass(frozen=True, slots=True)
class Past:
    """A job like this one that has succeeded."""

    seconds: float
    stages: tuple[Stage, ...]
    same: bool  # it asked for the very same


@dataclass(frozen=True, slots=True)
class Estimate:
    left_s: float
    basis: str


def estimate(
    passed_s: float, fraction: float, stages: Sequence[Stage], past: Sequence[Past]
) -> Estimate | None:
    """How long a running job still takes; None where nothing tells.

    By jobs that asked for the same; else by the part that is done; else by jobs of the same kind
    and model, whatever their size.
    """
    same = [one for one in past if one.same]
    if same:
        return _by_past(passed_s, stages, same, "as the last {} that asked for the same")
    if fraction >= LEAST_FRACTION:
        left = passed_s * (1 - fraction) / fraction
        return Estimate(left, "by the part that is done")
    if past:
        return _by_past(passed_s, stages, past, "as the last {} of this kind and model")
    return None


def _by_past(
    passed_s: float, stages: Sequence[Stage], past: Sequence[Past], basis: str
) -> Estimate:
    left = statistics.median(_left(passed_s, stages, one) for one in past)
    return Estimate(max(0.0, left), basis.format("one" if len(past) == 1 else len(past)))


def _left(passed_s: float, stages: Sequence[Stage], past: Past) -> float:
    """What it still took from the beginning of the stage that this job is in."""
    if stages:
        now = stages[-1]
        for one in past.stages:
            if one.stage == now.stage:
                return past.seconds - one.at_s - (passed_s - now.at_s)
    return past.seconds - passed_s
