"""Our pages, read by the parsers of prometheus-client and held against its own encoders."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from driftscope_service.metrics.exposition import MAX_EXEMPLAR_CHARACTERS, Exemplar, Family
from driftscope_service.metrics.metric_names import Metric

GAUGE = Metric("driftscope_a_nats", "gauge", "nats", 'Back\\slash and "quote".', ("run", "kind"))
COUNTER = Metric("driftscope_b_bytes_total", "counter", "bytes", "Bytes.", ("run",))
HISTOGRAM = Metric("driftscope_c_seconds", "histogram", "seconds", "Time.", ())
DISTRIBUTION = Metric("driftscope_d_nats", "gaugehistogram", "nats", "Now.", ("run",))
BUCKETS = ((0.0, 3), (0.5, 3), (1.0, 5), (math.inf, 9))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.floats(allow_nan=False)


def samples(page: str, *, is_open: bool) -> list[Any]:
    families = parse_open(page + "# EOF\n") if is_open else parse_text(page)  # type: ignore[no-untyped-call]
    return [(family.type, family.documentation, *sample[:3]) for family in families
            for sample in family.samples]  # fmt: skip


def theirs(family: Any, *, is_open: bool) -> list[Any]:
    class Fixed(Collector):
        def collect(self) -> Any:
            return [family]

    registry = CollectorRegistry()
    registry.register(Fixed())
    encode: Any = openmetrics.generate_latest if is_open else generate_latest
    return samples(encode(registry).decode().removesuffix("# EOF\n"), is_open=is_open)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS, NUMBERS), max_size=5), st.booleans())
def test_gauges_are_what_the_other_encoder_writes(rows: list[Any], is_open: bool) -> None:
    rows = list({row[:2]: row for row in rows}.values())
    ours = Family(GAUGE)
    other = GaugeMetricFamily(GAUGE.name, GAUGE.help, labels=GAUGE.labels)
    for run, kind, number in rows:
        ours.add([run, kind], number)
        other.add_metric([run, kind], number)
    found = samples(ours.text(openmetrics=is_open), is_open=is_open)
    assert found == theirs(other, is_open=is_open)


@pytest.mark.parametrize("is_open", [False, True])
def test_counters_are_what_the_other_encoder_writes(is_open: bool) -> None:
    ours, other = Family(COUNTER), CounterMetricFamily(COUNTER.name, COUNTER.help, labels=["run"])
    for run, number in (("a", 0), ("b", 2**53)):
        ours.add([run], number)
        other.add_metric([run], number)
    found = samples(ours.text(openmetrics=is_open), is_open=is_open)
    assert found == theirs(other, is_open=is_open)


def test_a_histogram_has_buckets_count_and_sum() -> None:
    for is_open in (False, True):
        family = Family(HISTOGRAM)
        family.add_distribution([], BUCKETS, 2.5)
        values = {
            (name, labels.get("le")): number
            for *_, name, labels, number in samples(
                family.text(openmetrics=is_open), is_open=is_open
            )
        }
        assert values["driftscope_c_seconds_count", None] == 9
        assert values["driftscope_c_seconds_sum", None] == 2.5
        assert values["driftscope_c_seconds_bucket", "1.0"] == 5
        assert values["driftscope_c_seconds_bucket", "+Inf"] == 9


def test_a_distribution_of_now_has_one_name_in_both_formats() -> None:
    family = Family(DISTRIBUTION)
    family.add_distribution(["r"], BUCKETS, 2.5)
    found = [
        {row[2] for row in samples(family.text(openmetrics=is_open), is_open=is_open)}
        for is_open in (False, True)
    ]
    assert found[0] == found[1] == {f"driftscope_d_nats_{end}" for end in (
        "bucket", "gcount", "gsum")}  # fmt: skip
    assert "# TYPE driftscope_d_nats gaugehistogram" in family.text(openmetrics=True)


def exemplar(value: float, text: str = "/runs/r") -> Exemplar:
    return Exemplar("page", text, value, 1.5)


@pytest.mark.parametrize(
    ("value", "bucket"), [(0.0, "0.0"), (0.7, "1.0"), (1.0, "1.0"), (1.1, "+Inf")]
)
def test_an_exemplar_stands_on_the_bucket_that_holds_it(value: float, bucket: str) -> None:
    family = Family(DISTRIBUTION)
    family.add_distribution(["r"], BUCKETS, None, exemplar(value))
    whole = Family(DISTRIBUTION)
    for part in (Family(DISTRIBUTION), family, Family(DISTRIBUTION)):
        whole.extend(part.lines())
    found = [
        (sample.labels["le"], sample.exemplar)
        for parsed in parse_open(whole.text(openmetrics=True) + "# EOF\n")  # type: ignore[no-untyped-call]
        for sample in parsed.samples
        if sample.exemplar
    ]
    assert [where for where, _ in found] == [bucket]
    assert (found[0][1].labels, found[0][1].value) == ({"page": "/runs/r"}, value)
    assert "page" not in whole.text(openmetrics=False)


def test_an_exemplar_has_a_largest_size() -> None:
    room = MAX_EXEMPLAR_CHARACTERS - len("page")
    assert exemplar(1.0, "x" * room).fits
    assert not exemplar(1.0, "x" * (room + 1)).fits


@pytest.mark.parametrize(
    ("number", "text"), [(math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN"), (1, "1.0")]
)
def test_numbers_that_are_not_finite(number: float, text: str) -> None:
    family = Family(COUNTER)
    family.add(["r"], number)
    assert family.text(openmetrics=False).endswith(f'{{run="r"}} {text}\n')
