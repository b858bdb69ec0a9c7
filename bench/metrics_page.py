"""What /metrics takes with fifty active runs: with nothing new, with a new step of every run.

A service of its own on a temporary folder, rendered in this process as the route renders it, in
the format that Prometheus asks for. Drift is worked out after a page and is not waited for.

    python bench/metrics_page.py [--runs 50] [--steps 200] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from driftscope_probes.diagnosis.diagnose import diagnose
from driftscope_probes.diagnosis.observed import Observed
from driftscope_probes.drift import SERIES
from driftscope_probes.mismatch import compare, profiles
from driftscope_probes.mismatch.frameworks import aliases, presets
from driftscope_probes.mismatch.thresholds import crossed_thresholds
from driftscope_probes.tokens import checked_tokens
from driftscope_service.metrics_page import MetricsPage
from driftscope_service.runs.store.runs import RunRepository
from driftscope_service.runs.store.steps import NewStep, StepRepository
from driftscope_service.server import settle_memory
from driftscope_service.service import Service, open_service
from driftscope_service.settings import load_settings

ACCEPT = "application/openmetrics-text;version=1.0.0"
REPEATS = 9
TOKENS = 4_096
DTYPES = {"rollout_dtype": "bf16", "trainer_dtype": "bf16"}


def document() -> dict[str, object]:
    """All that the analysis of a step holds, so that reading it takes what it takes."""
    random = np.random.default_rng(0)
    rollout = -random.exponential(1.0, TOKENS)
    trainer = rollout + random.normal(0.0, 0.02, TOKENS)
    limits = [0, TOKENS // 4, TOKENS]
    pair = checked_tokens(rollout, trainer, limits, None)
    comparison = compare(rollout, trainer, limits).to_dict()
    crossed = crossed_thresholds(comparison, rollout_dtype="bf16", trainer_dtype="bf16")
    histogram = profiles(rollout, trainer, limits).abs_diff_histogram.to_dict()
    return {
        "comparison": comparison,
        "diagnosis": diagnose(Observed(pair, DTYPES)).to_dict(),
        "aliases": aliases(pair),
        "presets": presets(pair),
        "crossed_limits": [limit.to_dict() for limit in crossed],
        "profiles": {"abs_diff_histogram": histogram},
    }


def push(service: Service, runs: int, steps: range) -> None:
    """As the intake records it."""
    whole = document()
    comparison = whole["comparison"]
    assert isinstance(comparison, dict)
    series = {name: comparison.get(name) for name in SERIES}
    analysis = json.dumps(whole, separators=(",", ":")).encode()
    with service.database.write() as connection:
        of_runs, of_steps = RunRepository(connection), StepRepository(connection)
        for number in range(runs):
            run, _ = of_runs.put(f"run-{number}", DTYPES)
            for step in steps:
                new = NewStep(step, "0" * 64, 0, 1, [], TOKENS, 2, DTYPES, [], series, analysis)
                of_steps.add(run.number, new)
                of_runs.step_completed(run.number, new)


@dataclass(frozen=True, slots=True)
class Took:
    wall_ms: float
    cpu_ms: float  # of the rendering thread: what is left of the wall is other work and waiting


def took(render: Callable[[], object]) -> Took:
    wall, cpu = time.perf_counter(), time.thread_time()
    render()
    return Took(1000.0 * (time.perf_counter() - wall), 1000.0 * (time.thread_time() - cpu))


def summary(name: str, rounds: Sequence[Took]) -> dict[str, float]:
    return {
        f"{name}_ms": median(each.wall_ms for each in rounds),
        f"{name}_cpu_ms": median(each.cpu_ms for each in rounds),
        f"{name}_most_cpu_ms": max(each.cpu_ms for each in rounds),
    }


def measure(service: Service, runs: int, steps: int) -> dict[str, float]:
    push(service, runs, range(steps))
    page = MetricsPage(service)
    settle_memory()  # as the server does
    first = took(lambda: page.render(ACCEPT))
    changed = []
    for step in range(steps, steps + REPEATS):
        push(service, runs, range(step, step + 1))
        changed.append(took(lambda: page.render(ACCEPT)))
    page.stop()
    unchanged = [took(lambda: page.render(ACCEPT)) for _ in range(REPEATS)]
    body, _ = page.render(ACCEPT)
    return {
        "first_ms": first.wall_ms,
        "first_cpu_ms": first.cpu_ms,
        **summary("every_run_changed", changed),
        **summary("unchanged", unchanged),
        "page_bytes": len(body),
        "samples": sum(not line.startswith(b"#") for line in body.splitlines()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings({}, data_dir=Path(folder))
        with open_service(settings) as service:
            found = measure(service, given.runs, given.steps)
    if given.json:
        print(json.dumps(found))
        return
    for name, number in found.items():
        print(f"{name:30} {number:12.1f}")


if __name__ == "__main__":
    main()
