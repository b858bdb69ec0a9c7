"""Families of samples → the page that Prometheus reads: text format 0.0.4 or OpenMetrics 1.0.

In: Family. Out: text. A family writes its lines as samples are added, so that lines which do not
change from scrape to scrape can be kept: the general encoder takes 7 µs a sample.
Formats: prometheus.io/docs/instrumenting/exposition_formats, OpenMetrics 1.0 (RFC draft).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from driftscope_service.export.metric_names import TOTAL, Metric

#: OpenMetrics 1.0: label names and values of an exemplar together, in characters.
MAX_EXEMPLAR_CHARACTERS = 128
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


class Family:
    """Samples of one metric, in the order in which they are added."""

    __slots__ = ("_exemplars", "_lines", "metric")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._lines: list[str] = []
        self._exemplars: dict[int, str] = {}

    def add(self, values: Sequence[str], number: float, suffix: str = "") -> None:
        assert len(values) == len(self.metric.labels), self.metric.name
        self._line(suffix, _labels(self.metric.labels, tuple(values)), number)

    def add_distribution(
        self,
        values: Sequence[str],
        buckets: Iterable[tuple[float, int]],  # (upper edge, count up to it), the last one +Inf
        total: float | None,  # None: it overflowed
        exemplar: Exemplar | None = None,
    ) -> None:
        """Of a histogram or gaugehistogram; the exemplar goes to the bucket that holds it."""
        labels = _labels(self.metric.labels, tuple(values))
        count = 0
        for edge, count in buckets:
            if exemplar is not None and exemplar.value <= edge:
                self._exemplars[len(self._lines)] = _exemplar_text(exemplar)
                exemplar = None
            le = f'le="{_number(edge)}"'
            self._line("_bucket", f"{labels},{le}" if labels else le, count)
        short = "g" if self.metric.kind == "gaugehistogram" else ""
        self._line(f"_{short}count", labels, count)
        # OpenMetrics takes no count without a sum.
        self._line(f"_{short}sum", labels, math.inf if total is None else total)

    def extend(self, other: Family) -> None:
        assert other.metric is self.metric
        start = len(self._lines)
        self._lines += other._lines
        self._exemplars |= {start + place: text for place, text in other._exemplars.items()}

    def text(self, *, openmetrics: bool) -> str:
        """With its HELP and TYPE."""
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
        if not self._exemplars:
            return head + "".join(self._lines)
        lines = list(self._lines)
        for place, exemplar in self._exemplars.items():
            lines[place] = lines[place].rstrip("\n") + exemplar
        return head + "".join(lines)

    def _text_of_gaugehistogram(self) -> str:
        """The text format does not know the type: buckets of a histogram and two gauges."""
        name, help_text = self.metric.name, self.metric.help.replace("\\", r"\\")
        parts = []
        for suffix, kind in (("_bucket", "histogram"), ("_gcount", "gauge"), ("_gsum", "gauge")):
            family = name if suffix == "_bucket" else name + suffix
            start = f"{name}{suffix}"
            lines = [line for line in self._lines if line.startswith((f"{start}{{", f"{start} "))]
            parts.append(f"# HELP {family} {help_text}\n# TYPE {family} {kind}\n{''.join(lines)}")
        return "".join(parts)

    def _line(self, suffix: str, labels: str, number: float) -> None:
        braces = f"{{{labels}}}" if labels else ""
        self._lines.append(f"{self.metric.name}{suffix}{braces} {_number(number)}\n")


@lru_cache(maxsize=16_384)
def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    """In alphabetical order, as other clients write them."""
    pairs = sorted(zip(names, values, strict=True))
    return ",".join(f'{name}="{value.translate(_LABEL_ESCAPES)}"' for name, value in pairs)


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
