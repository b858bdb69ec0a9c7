"""The list of metrics: every source exists in a comparison, every name follows the rules."""

from __future__ import annotations

import re
from importlib import import_module
from typing import get_args

import pytest

from driftscope_probes.drift.metric import State
from driftscope_probes.numbers import NUMBERS
from driftscope_service.experiments.registry import EXPERIMENTS, load_kinds
from driftscope_service.metrics import metric_names
from driftscope_service.metrics.metric_names import (
    CELL_LABELS,
    CELL_SAMPLES,
    RUN_SAMPLES,
    Metric,
    sample_names,
)
from driftscope_service.metrics_page import every_metric

#: Of all parts.
METRICS = every_metric(load_kinds())
UNITS = {"", "nats", "ratio", "seconds", "bytes", "steps"}
#: What is counted, where the number of it is the metric.
COUNTED = {"tokens", "sequences", "faults", "outputs", "requests"}
#: Per series of a run or cell: all of them have few values.
BOUNDED = {
    *("run", "model", "engine_dtype", "trainer_dtype", "rollout_dtype", "framework", "engine"),
    *("precision", "estimator", "level", "stat", "bounds", "side", "kind", "state", "metric"),
    *("direction", "target", "op", "dtype", "threads", "verdict", "axis", "kernels", "worker"),
    *("result", "reason", "version", "route", "method", "status_class", "cause", "way"),
}


def test_every_number_with_a_metric_is_exported_once() -> None:
    exported = [row.name for row in NUMBERS.values() if row.export]
    assert sorted(sample.source for sample in RUN_SAMPLES) == sorted(exported)


def test_names_have_prefix_and_unit() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"driftscope_[a-z0-9_]+", metric.name)
        assert metric.help.endswith("."), metric.name
        assert metric.unit in UNITS | COUNTED
        stem = metric.name.removesuffix("_total")
        assert stem.endswith(f"_{metric.unit}" if metric.unit else ""), metric.name
        assert (metric.kind == "counter") == metric.name.endswith("_total")


def test_no_name_is_there_twice() -> None:
    stored = [name for metric in METRICS for name in sample_names(metric)]
    assert len(set(stored)) == len(stored)


def test_every_metric_of_the_file_is_listed() -> None:
    modules = [import_module(f"{package}.metrics") for package in EXPERIMENTS]
    everything = [each for module in (metric_names, *modules) for each in vars(module).values()]
    defined = {each for each in everything if isinstance(each, Metric)}
    defined |= {sample.metric for sample in CELL_SAMPLES + RUN_SAMPLES}
    assert defined == set(METRICS)


def test_labels_are_few_words() -> None:
    assert {label for metric in METRICS for label in metric.labels} == BOUNDED


def test_every_sample_fills_the_labels_of_its_metric() -> None:
    for samples, subject in ((CELL_SAMPLES, CELL_LABELS), (RUN_SAMPLES, ("run",))):
        for sample in samples:
            assert sample.metric.labels[: len(subject)] == subject
            assert len(subject) + len(sample.more_labels) == len(sample.metric.labels)


def test_every_state_of_a_drift_has_its_label() -> None:
    assert set(metric_names.DRIFT_STATES) == set(get_args(State))


@pytest.mark.parametrize("kind", ["gauge", "histogram", "gaugehistogram"])
def test_under_which_names_a_metric_is_stored(kind: metric_names.Kind) -> None:
    found = sample_names(Metric("driftscope_x", kind, "", "X."))
    ends = {"gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
    expected = ends.get(kind, ["_bucket", "_gsum", "_gcount"])
    assert found == tuple(f"driftscope_x{end}" for end in expected)
