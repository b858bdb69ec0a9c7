"""Drift over steps on series whose truth is known: false events, delays, dates, trends, time.

    python bench/drift_rates.py [--json] [--steps N] [--runs N]

Seeded: the same figures every time, but for the time. Prints the tables of
docs/drift-over-steps.md.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from driftscope_probes.drift import SERIES, Drift, Event, StepValues, drift_of
from driftscope_probes.mismatch.number import FloatArray

SEED = 20261122
#: Healthy runs of this many steps.
STEPS = 1000
#: Steps before the first one that is used: an AR(1) series has forgotten its start by then.
SETTLING = 200
#: Typical of a mean over one step's tokens: such a number moves by a tenth from step to step.
TYPICAL_NOISE = 0.1
NAME = "abs_diff_mean"
LEVEL = 0.012  # nats


@dataclass(frozen=True, slots=True)
class Noise:
    name: str
    memory: float = 0.0  # lag-1 autocorrelation
    freedom: float | None = None  # of Student's t; None: Gaussian
    spread: float = TYPICAL_NOISE  # std of the logarithm (of the Gaussian one)


WHITE, SOME_MEMORY, MEMORY = Noise("white"), Noise("AR(1) 0.5", 0.5), Noise("AR(1) 0.8", 0.8)
HEAVY = Noise("t(3)", freedom=3.0)
NOISES = (
    *(WHITE, Noise("white, 30 %", spread=0.3), SOME_MEMORY, MEMORY, Noise("AR(1) 0.95", 0.95)),
    *(HEAVY, Noise("t(3), AR(1) 0.5", 0.5, 3.0)),
)
#: A dashboard looks again and again: one healthy run in 25 is looked at as it grows, after so many.
WATCHED_SHARE = 25
LOOKS = (*range(5, 101, 5), *range(150, STEPS + 1, 50))
#: The synthetic runs with a fault: lengths, least steps after the onset, sizes.
SHORTEST, LONGEST = 40, 200
LEAST_AFTER = 10
SIZES = (1.5, 10.0)
DOUBLING = 2.0
#: A detection further than this from the truth is another event.
NEAR = 10
SOON, BESIDE = 5, 1
SLOPES = (0.03, 0.1)  # of the logarithm, per step
SPEED_STEPS = 10_000


@dataclass(frozen=True, slots=True)
class FalseEvents:
    noise: str
    steps: int  # simulated in all
    events: int  # told at the end of their runs though nothing happened
    growing: int  # of them, told as growth
    watched: int  # runs looked at as they grew
    told_on_the_way: int  # of them, with an event at any look


@dataclass(frozen=True, slots=True)
class Found:
    onset: str
    size: str
    noise: str
    runs: int
    found: float  # share of runs
    soon: float  # share found within SOON steps, the onset counted as the first
    dated: float  # share dated within BESIDE of the onset
    held: float  # share whose 95 % interval has the onset
    interval: float  # steps in the interval, median
    alone: float  # share with no other event


def noise(rng: np.random.Generator, steps: int, kind: Noise) -> FloatArray:
    """[steps] AR(1), as logarithms."""
    count = steps + SETTLING
    freedom = kind.freedom
    shocks = rng.normal(size=count) if freedom is None else rng.standard_t(freedom, size=count)
    shocks *= np.sqrt(1.0 - kind.memory**2)
    values = [float(shocks[0])]
    for shock in shocks[1:].tolist():
        values.append(kind.memory * values[-1] + shock)
    return kind.spread * np.array(values[SETTLING:])


def reading(logs: FloatArray) -> Drift:
    """Steps count from 1."""
    values = (LEVEL * np.exp(logs)).tolist()
    return drift_of([StepValues(step, {NAME: value}) for step, value in enumerate(values, 1)])


def false_events(steps: int, rng: np.random.Generator) -> Iterator[FalseEvents]:
    runs = max(1, steps // STEPS)
    for kind in NOISES:
        found = [event for _ in range(runs) for event in reading(noise(rng, STEPS, kind)).events]
        watched = max(1, runs // WATCHED_SHARE)
        told = sum(told_at_any_look(noise(rng, STEPS, kind)) for _ in range(watched))
        growing = sum(event.kind == "growth" for event in found)
        yield FalseEvents(kind.name, runs * STEPS, len(found), growing, watched, told)


def told_at_any_look(logs: FloatArray) -> bool:
    return any(bool(reading(logs[:end]).events) for end in LOOKS)


Onset = Callable[[np.random.Generator, int], int]


def anywhere(rng: np.random.Generator, steps: int) -> int:
    return int(rng.integers(2, steps - LEAST_AFTER + 2))


def shifts(runs: int, rng: np.random.Generator) -> Iterator[Found]:
    """The synthetic runs: onset anywhere from step 2, sizes from SIZES, three kinds of noise."""
    low, high = (math.log(size) for size in SIZES)
    for kind in (WHITE, SOME_MEMORY, HEAVY):
        sizes = np.exp(rng.uniform(low, high, runs))
        yield found_in(rng, kind, sizes.tolist(), "anywhere", "1.5 to 10 times", anywhere)
    for kind in (WHITE, SOME_MEMORY, MEMORY, HEAVY):
        yield found_in(rng, kind, [DOUBLING] * runs, "anywhere", "2 times", anywhere)


def early_shifts(runs: int, rng: np.random.Generator) -> Iterator[Found]:
    """A doubling among the first steps, where little is known of the level before."""
    for onset in (2, 3, 5, 8, 12, 18):
        for kind in (WHITE, SOME_MEMORY, HEAVY):

            def there(_: np.random.Generator, __: int, onset: int = onset) -> int:
                return onset

            yield found_in(rng, kind, [DOUBLING] * runs, str(onset), "2 times", there)


def found_in(
    rng: np.random.Generator, kind: Noise, sizes: Sequence[float], where: str, what: str, at: Onset
) -> Found:
    return scored(
        (shifted_run(rng, kind, size, at) for size in sizes), where, what, kind, len(sizes)
    )


def shifted_run(rng: np.random.Generator, kind: Noise, size: float, at: Onset) -> tuple[int, Drift]:
    steps = int(rng.integers(SHORTEST, LONGEST + 1))
    onset = at(rng, steps)
    logs = noise(rng, steps, kind)
    logs[onset - 1 :] += math.log(size)
    return onset, reading(logs)


def slopes(runs: int, rng: np.random.Generator) -> Iterator[Found]:
    """A level that begins to grow: its knee is the onset."""
    for slope in SLOPES:
        for kind in (WHITE, SOME_MEMORY):
            yield scored(
                (broken_line(rng, kind, slope) for _ in range(runs)),
                *("anywhere", f"{slope:.0%} per step", kind, runs),
            )


def broken_line(rng: np.random.Generator, kind: Noise, slope: float) -> tuple[int, Drift]:
    steps = int(rng.integers(2 * SHORTEST, LONGEST + 1))
    onset = int(rng.integers(SHORTEST // 2, steps - SHORTEST // 2))
    logs = noise(rng, steps, kind)
    return onset, reading(logs + slope * np.maximum(0, np.arange(1, steps + 1) - onset + 1))


def scored(
    told: Iterator[tuple[int, Drift]], where: str, what: str, kind: Noise, runs: int
) -> Found:
    found = soon = dated = held = alone = 0
    widths = []
    for onset, drift in told:
        alone += len(drift.events) == 1
        event = nearest(drift.events, onset)
        if event is None:
            continue
        found += 1
        soon += event.found_at - onset + 1 <= SOON
        dated += abs(event.step - onset) <= BESIDE
        held += event.low <= onset <= event.high
        widths.append(event.high - event.low + 1)
    return Found(
        onset=where,
        size=what,
        noise=kind.name,
        runs=runs,
        found=found / runs,
        soon=soon / runs,
        dated=dated / runs,
        held=held / runs,
        interval=float(np.median(widths)) if widths else math.nan,
        alone=alone / runs,
    )


def nearest(events: Sequence[Event], onset: int) -> Event | None:
    near = [event for event in events if abs(event.step - onset) <= NEAR]
    return min(near, key=lambda event: abs(event.step - onset), default=None)


def seconds(rng: np.random.Generator) -> float:
    """All SERIES over SPEED_STEPS steps of noise, of one core."""
    logs = TYPICAL_NOISE * rng.normal(size=(SPEED_STEPS, len(SERIES)))
    points = [
        StepValues(step, dict(zip(SERIES, row, strict=True)))
        for step, row in enumerate(np.exp(logs).tolist())
    ]
    begin = time.process_time()
    drift_of(points)
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int, default=1_000_000, help="healthy ones, per noise")
    parser.add_argument("--runs", type=int, default=400, help="with a fault, per row")
    options = parser.parse_args()
    rng = np.random.default_rng(SEED)
    measured: dict[str, Callable[[], Iterator[FalseEvents | Found]]] = {
        "false_events": lambda: false_events(options.steps, rng),
        "shifts": lambda: shifts(options.runs, rng),
        "early_shifts": lambda: early_shifts(options.runs // 4, rng),
        "slopes": lambda: slopes(options.runs // 4, rng),
    }
    tables = {}
    for name, rows in measured.items():
        tables[name] = [asdict(row) for row in rows()]
        if not options.json:
            print_table(name, tables[name])
    speed = seconds(rng)
    if options.json:
        timing = {"steps": SPEED_STEPS, "series": len(SERIES), "seconds": speed}
        print(json.dumps({**tables, "speed": timing}, indent=1))
        return
    print(f"\n{SPEED_STEPS} steps of {len(SERIES)} series: {speed:.2f} s of one core")


def print_table(name: str, rows: Sequence[dict[str, object]]) -> None:
    print(f"\n{name}\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        cells = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
