"""The list of metrics: every source exists in a comparison, every name follows the rules."""

from __future__ import annotations

import re

from driftscope_probes.mismatch import compare
from driftscope_service.export.metric_names import CELL_LABELS, CELL_SAMPLES, METRICS

UNITS = ("nats", "ratio", "seconds", "tokens", "jobs", "info", "verdict", "faults")


def test_every_source_is_a_number_of_a_comparison() -> None:
    numbers = compare([-1.0, -2.0], [-1.5, -2.0], [0, 2], resamples=0).to_dict()
    missing = [sample.source for sample in CELL_SAMPLES if sample.source not in numbers]
    assert missing == []


def test_names_have_prefix_and_unit() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"driftscope_[a-z0-9_]+", metric.name)
        assert metric.name.rsplit("_", 1)[1] in UNITS, metric.name
        assert metric.help.endswith(".")
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_every_sample_fills_the_labels_of_its_metric() -> None:
    for sample in CELL_SAMPLES:
        assert len(CELL_LABELS) + len(sample.more_labels) == len(sample.metric.labels)
