"""Steps in a running service's store, as the intake records them, and the page read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open

from driftscope_probes.diagnosis.cause import Diagnosis
from driftscope_probes.drift import SERIES
from driftscope_probes.mismatch import Extras, compare, profiles
from driftscope_probes.mismatch.thresholds import crossed_thresholds
from driftscope_service.runs.answer import settle_answer
from driftscope_service.runs.ingest.analysis import step_verdict
from driftscope_service.runs.store.runs import RunRepository
from driftscope_service.runs.store.steps import NewStep, StepRepository

AddStep = Callable[..., dict[str, Any]]
BF16 = {"rollout_dtype": "bf16", "trainer_dtype": "bf16"}


@pytest.fixture
def add_step() -> AddStep:
    def add(
        running: Any,
        run: str,
        step: int,
        rollout: Any,
        trainer: Any,
        diagnosis: Diagnosis | None = None,
        **metadata: str,
    ) -> dict[str, Any]:
        """Returns the analysis."""
        rollout, trainer = np.asarray(rollout, np.float64), np.asarray(trainer, np.float64)
        limits = [0, len(rollout)]
        extras = Extras(behavior_version=np.array([4]), train_version=5)
        comparison = compare(rollout, trainer, limits, resamples=0, extras=extras).to_dict()
        known = {**BF16, **metadata}
        dtypes = {name: known[name] for name in BF16}
        document = {
            "comparison": comparison,
            "diagnosis": None if diagnosis is None else diagnosis.to_dict(),
            "crossed_limits": [each.to_dict() for each in crossed_thresholds(comparison, **dtypes)],
            "profiles": {
                "abs_diff_histogram": profiles(
                    rollout, trainer, limits
                ).abs_diff_histogram.to_dict()
            },
        }
        series = {name: comparison.get(name) for name in SERIES}
        analysis = json.dumps(document).encode()
        with running.service.database.write() as connection:
            runs = RunRepository(connection)
            found, _ = runs.put(run, {})
            new = NewStep(
                *(step, "0" * 64, 0, 1, [], comparison["tokens"], 1, known, [], series, analysis),
                step_verdict(diagnosis),
            )
            placed = StepRepository(connection).add(found.number, new)
            runs.step_completed(found.number, new, placed)
            settle_answer(connection, run)
        return document

    return add


class Page:
    """Samples of one scrape in the format that Prometheus asks for."""

    def __init__(self, running: Any) -> None:
        answer = running.client.get("/metrics", headers={"accept": "application/openmetrics-text"})
        assert answer.status_code == 200
        self.samples = [
            sample
            for family in parse_open(answer.text)  # type: ignore[no-untyped-call]
            for sample in family.samples
            if sample.name.startswith("driftscope_")
        ]

    def value(self, name: str, **labels: str) -> float | None:
        found = [
            sample.value
            for sample in self.samples
            if sample.name == f"driftscope_{name}" and sample.labels == labels
        ]
        assert len(found) < 2
        return found[0] if found else None

    def labels(self, name: str, label: str) -> set[str]:
        return {s.labels[label] for s in self.samples if s.name == f"driftscope_{name}"}


@pytest.fixture
def page() -> type[Page]:
    return Page
