"""Drift over steps on series whose truth is known: false alarms, delays, trends, time.

    python bench/drift_rates.py [--json] [--runs N]

Seeded: the same figures every time, but for the time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from driftscope_probes.drift import SERIES, StepValues, drift_of
from driftscope_probes.drift.drift import MetricDrift, metric_drift
from driftscope_probes.mismatch.number import FloatArray

SEED = 20261122
STEPS = 1000
#: Steps before the first one that is used: an AR(1) series has forgotten its start by then.
SETTLING = 200
#: Typical of a mean over one step's tokens: such a number moves by a tenth from step to step.
TYPICAL_NOISE = 0.1
NOISES: dict[str, tuple[float, float | None]] = {  # lag-1 autocorrelation, Student's freedom
    "white": (0.0, None),
    "AR(1) 0.5": (0.5, None),
    "AR(1) 0.8": (0.8, None),
    "AR(1) 0.95": (0.95, None),
    "t(3)": (0.0, 3.0),
    "t(3), AR(1) 0.5": (0.5, 3.0),
}
#: A dashboard looks again and again: one run in 25 is looked at as it grows.
WATCHED_SHARE, LOOK_EVERY = 25, 50
SHIFT_AT = 200
SHIFT_NOISES = ((0.05, 0.0), (0.1, 0.0), (0.2, 0.0), (0.3, 0.0), (0.1, 0.5), (0.2, 0.5), (0.2, 0.8))
DRIFT_PER_STEP = 0.01
DRIFT_STEPS = (50, 100, 200, 1000)
SPEED_STEPS = 10_000


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    noise: str
    steps: int  # simulated in all
    shifts: int  # told though there is none
    steps_per_shift: float | None  # None: not one
    trends: int  # runs of STEPS told as trending at their end
    runs: int
    trends_watched: int  # runs told as trending at any look on the way
    watched: int


@dataclass(frozen=True, slots=True)
class Delay:
    factor: float
    noise: float  # spread of the logarithm
    autocorrelation: float
    found: float  # share of runs
    delay_median: float  # steps from the change to the alarm, the change's own step included
    delay_p95: float
    place_error_median: float  # steps
    place_error_p95: float


@dataclass(frozen=True, slots=True)
class DriftFound:
    per_step: float
    steps: int
    noise: float
    autocorrelation: float
    trending: float  # share of runs
    interval_holds: float  # share of those whose 95 % interval has the true slope


def noise(
    rng: np.random.Generator, steps: int, memory: float, freedom: float | None = None
) -> FloatArray:
    """[steps] AR(1) of spread 1 (of the Gaussian one)."""
    count = steps + SETTLING
    shocks = rng.normal(size=count) if freedom is None else rng.standard_t(freedom, size=count)
    shocks *= np.sqrt(1.0 - memory**2)
    values = [float(shocks[0])]
    for shock in shocks[1:].tolist():
        values.append(memory * values[-1] + shock)
    return np.array(values[SETTLING:])


def reading(logs: FloatArray) -> MetricDrift:
    return metric_drift("log", 0.0, np.arange(logs.size), np.exp(logs))


def false_alarms(runs: int, rng: np.random.Generator) -> list[FalseAlarms]:
    rows = []
    for name, (memory, freedom) in NOISES.items():
        found = [reading(TYPICAL_NOISE * noise(rng, STEPS, memory, freedom)) for _ in range(runs)]
        shifts = sum(len(one.alarms) for one in found)
        trends = sum(one.state == "trending" for one in found)
        watched = max(1, runs // WATCHED_SHARE)
        on_the_way = sum(
            trending_at_any_look(TYPICAL_NOISE * noise(rng, STEPS, memory, freedom))
            for _ in range(watched)
        )
        steps = runs * STEPS
        per_shift = steps / shifts if shifts else None
        rows.append(FalseAlarms(name, steps, shifts, per_shift, trends, runs, on_the_way, watched))
    return rows


def trending_at_any_look(logs: FloatArray) -> bool:
    ends = range(LOOK_EVERY, logs.size + 1, LOOK_EVERY)
    return any(reading(logs[:end]).state == "trending" for end in ends)


def delays(runs: int, rng: np.random.Generator) -> list[Delay]:
    rows = []
    for spread, memory in SHIFT_NOISES:
        found, errors = [], []
        for _ in range(runs):
            logs = spread * noise(rng, 2 * SHIFT_AT, memory)
            logs[SHIFT_AT:] += np.log(2.0)
            points = [p for p in reading(logs).change_points if p.found_at >= SHIFT_AT]
            if points:
                found.append(points[0].found_at - SHIFT_AT + 1)
                errors.append(abs(points[0].step - SHIFT_AT))
        rows.append(
            Delay(
                2.0,
                spread,
                memory,
                len(found) / runs,
                float(np.median(found)) if found else float("nan"),
                float(np.percentile(found, 95)) if found else float("nan"),
                float(np.median(errors)) if errors else float("nan"),
                float(np.percentile(errors, 95)) if errors else float("nan"),
            )
        )
    return rows


def drifts(runs: int, rng: np.random.Generator) -> list[DriftFound]:
    rows = []
    slope = np.log1p(DRIFT_PER_STEP)
    truth = np.expm1(100 * slope)
    for steps in DRIFT_STEPS:
        for memory in (0.0, 0.5):
            found = []
            for _ in range(runs):
                logs = 2 * TYPICAL_NOISE * noise(rng, steps, memory) + slope * np.arange(steps)
                found.append(reading(logs))
            trends = [one.trend for one in found if one.state == "trending" and one.trend]
            held = [one.low <= truth <= one.high for one in trends if one.from_step == 0]
            rows.append(
                DriftFound(
                    DRIFT_PER_STEP,
                    steps,
                    2 * TYPICAL_NOISE,
                    memory,
                    len(trends) / runs,
                    float(np.mean(held)) if held else float("nan"),
                )
            )
    return rows


def seconds(rng: np.random.Generator) -> float:
    """All SERIES over SPEED_STEPS steps of noise."""
    logs = TYPICAL_NOISE * rng.normal(size=(SPEED_STEPS, len(SERIES)))
    points = [
        StepValues(step, dict(zip(SERIES, row, strict=True)))
        for step, row in enumerate(np.exp(logs).tolist())
    ]
    begin = time.perf_counter()
    drift_of(points)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=1000, help="per noise of the false alarms")
    options = parser.parse_args()
    rng = np.random.default_rng(SEED)
    measured: dict[str, Callable[[], Sequence[FalseAlarms | Delay | DriftFound]]] = {
        "false_alarms": lambda: false_alarms(options.runs, rng),
        "delays": lambda: delays(max(1, options.runs // 5), rng),
        "drifts": lambda: drifts(max(1, options.runs // 5), rng),
    }
    tables = {name: [asdict(row) for row in measure()] for name, measure in measured.items()}
    speed = seconds(rng)
    if options.json:
        timing = {"steps": SPEED_STEPS, "series": len(SERIES), "seconds": speed}
        print(json.dumps({**tables, "speed": timing}, indent=1))
        return
    for name, rows in tables.items():
        print(f"\n{name}")
        print("  ".join(rows[0]))
        for row in rows:
            print("  ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    print(f"\n{SPEED_STEPS} steps of {len(SERIES)} series: {speed:.2f} s")


if __name__ == "__main__":
    main()
