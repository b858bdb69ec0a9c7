"""Families of samples → the page that Prometheus reads: text format 0.0.4 or OpenMetrics 1.0.

In: Family. Out: text. A family writes its lines as samples are added, so that lines which do not
change from scrape to scrape can be kept. A new step of fifty runs is five thousand new lines: what
they have in common is kept as well, 1 µs a line where the general encoder takes 7.
Formats: prometheus.io/docs/instrumenting/exposition_formats, OpenMetrics 1.0 (RFC draft).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from prometheus_client.registry import Collector

from driftscope_service.metrics.metric_names import TOTAL, Metric


def one(metric: Metric, value: float | None) -> Family:
    """A metric without labels; no sample where there is no value."""
    family = Family(metric)
    if value is not None:
        family.add([], value)
    return family


def collected(metric: Metric, collector: Collector) -> Family:
    """What a prometheus_client collector has counted, in the order of the labels' values."""
    family = Family(metric)
    (counted,) = collector.collect()
    samples = [sample for sample in counted.samples if not sample.name.endswith("_created")]
    # A stable order: the buckets of one histogram stay as they are.
    for sample in sorted(samples, key=lambda sample: [sample.labels[n] for n in metric.labels]):
        family.add_sample(sample.name, sample.labels, sample.value)
    return family


#: OpenMetrics 1.0: label names and values of an exemplar together, in characters.
MAX_EXEMPLAR_CHARACTERS = 128
#: The label of a bucket's upper edge.
LE = "le"
_LABEL_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


@dataclass(frozen=True, slots=True)
class Exemplar:
    label: str
    text: str
    value: float
    timestamp: float  # Unix time

    @property
    def fits(self) -> bool:
        return len(self.label) + len(self.text) <= MAX_EXEMPLAR_CHARACTERS


@dataclass(frozen=True, slots=True)
class Lines:
    """Finished lines of one metric."""

    text: str
    openmetrics: str  # the same with exemplars


class Family:
    """Samples of one metric, in the order in which they are added."""

    __slots__ = ("_lines", "_with_exemplar", "metric")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._lines: list[str] = []
        self._with_exemplar: dict[int, str] = {}  # index in _lines: OpenMetrics writes this there

    def add(self, values: Sequence[str], number: float) -> None:
        head = _head(self.metric.name, self.metric.labels, values)
        self._lines.append(f"{head}{_number(number)}\n")

    def add_sample(self, name: str, labels: Mapping[str, str], number: float) -> None:
        head = _head(name, tuple(labels), tuple(labels.values()))
        self._lines.append(f"{head}{_number(number)}\n")

    def add_distribution(
        self,
        values: Sequence[str],
        buckets: Iterable[tuple[float, int]],  # (upper edge, count up to it), the last one +Inf
        total: float | None,  # None: it overflowed
        exemplar: Exemplar | None = None,
    ) -> None:
        """For a histogram or gaugehistogram; the exemplar goes to the bucket that holds it."""
        name, labels = self.metric.name, self.metric.labels
        bucket, count = f"{name}_bucket", 0
        for edge, count in buckets:
            head = _head(bucket, (*labels, LE), [*values, _number(edge)])
            line = f"{head}{_number(count)}\n"
            if exemplar is not None and exemplar.value <= edge:
                self._with_exemplar[len(self._lines)] = line[:-1] + _exemplar_text(exemplar)
                exemplar = None
            self._lines.append(line)
        short = "g" if self.metric.kind == "gaugehistogram" else ""
        # OpenMetrics takes no count without a sum.
        for end, number in (("count", count), ("sum", math.inf if total is None else total)):
            head = _head(f"{name}_{short}{end}", labels, values)
            self._lines.append(f"{head}{_number(number)}\n")

    def lines(self) -> Lines:
        return Lines("".join(self._lines), self._open_lines())

    def extend(self, lines: Lines) -> None:
        """Add the samples of another family of the metric."""
        if lines.openmetrics != lines.text:
            self._with_exemplar[len(self._lines)] = lines.openmetrics
        self._lines.append(lines.text)

    def text(self, *, openmetrics: bool) -> str:
        """Including its HELP and TYPE."""
        if openmetrics:
            return self._openmetrics()
        if self.metric.kind == "gaugehistogram":
            return self._text_of_gaugehistogram()
        name, help_text = self.metric.name, self.metric.help.replace("\\", r"\\")
        head = f"# HELP {name} {help_text}\n# TYPE {name} {self.metric.kind}\n"
        return head + "".join(self._lines)

    def _openmetrics(self) -> str:
        name = self.metric.name
        if self.metric.kind == "counter":
            name = name.removesuffix(TOTAL)
        help_text = self.metric.help.translate(_LABEL_ESCAPES)
        head = f"# HELP {name} {help_text}\n# TYPE {name} {self.metric.kind}\n"
        if self.metric.unit:
            head += f"# UNIT {name} {self.metric.unit}\n"
        return head + self._open_lines()

    def _open_lines(self) -> str:
        lines = self._lines
        if self._with_exemplar:
            lines = [self._with_exemplar.get(index, line) for index, line in enumerate(lines)]
        return "".join(lines)

    def _text_of_gaugehistogram(self) -> str:
        """The text format does not know the type: buckets of a histogram and two gauges."""
        name, help_text = self.metric.name, self.metric.help.replace("\\", r"\\")
        parts, every = [], "".join(self._lines).split("\n")
        for suffix, kind in (("_bucket", "histogram"), ("_gcount", "gauge"), ("_gsum", "gauge")):
            family = name if suffix == "_bucket" else name + suffix
            starts = (f"{name}{suffix}{{", f"{name}{suffix} ")
            lines = [f"{line}\n" for line in every if line.startswith(starts)]
            parts.append(f"# HELP {family} {help_text}\n# TYPE {family} {kind}\n{''.join(lines)}")
        return "".join(parts)


class Families:
    """Families with samples, by name of the metric."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def of(self, metric: Metric) -> Family:
        family = self._families.get(metric.name)
        if family is None:
            family = self._families[metric.name] = Family(metric)
        return family

    def lines(self) -> dict[str, Lines]:
        return {name: family.lines() for name, family in self._families.items()}


def _head(name: str, labels: tuple[str, ...], values: Sequence[str]) -> str:
    """A line up to its number."""
    if not values:
        return f"{name} "
    before, after = _around_first(name, labels, tuple(values[1:]))
    return f"{before}{_escaped(values[0])}{after}"


#: What lines of one metric share: the first label tells runs or models apart, the others take a few
#: words each.
@lru_cache(maxsize=4096)
def _around_first(name: str, labels: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, str]:
    """Before and after the value of the first label. Labels in alphabetical order, as other clients
    write them, and `le` last."""
    assert len(labels) == 1 + len(others), name
    pairs = dict(zip(labels[1:], others, strict=True))
    before: list[str] = []
    after: list[str] = []
    for label in sorted(pairs, key=lambda label: (label == LE, label)):
        pair = f'{label}="{_escaped(pairs[label])}"'
        (before if label != LE and label < labels[0] else after).append(pair)
    start = "".join(f"{pair}," for pair in before)
    return f'{name}{{{start}{labels[0]}="', "".join(['"', *(f",{pair}" for pair in after), "} "])


@lru_cache(maxsize=1024)
def _escaped(value: str) -> str:
    return value.translate(_LABEL_ESCAPES)


def _number(number: float) -> str:
    if math.isfinite(number):
        return repr(float(number))
    return "NaN" if math.isnan(number) else "+Inf" if number > 0 else "-Inf"


def _exemplar_text(exemplar: Exemplar) -> str:
    text = exemplar.text.translate(_LABEL_ESCAPES)
    return (
        f' # {{{exemplar.label}="{text}"}} {_number(exemplar.value)} '
        f"{_number(exemplar.timestamp)}\n"
    )
