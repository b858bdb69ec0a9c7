"""The report of a kernel check as its readers take it: what `kernels check --json` prints."""

from __future__ import annotations

from typing import Any, Literal

from driftscope_kernels.options import VerdictName
from driftscope_probes.kernels.request import KernelsRequest
from driftscope_probes.record import Record

#: Version of a kernel check's report.
SCHEMA = "1"


class Difference(Record):
    """The first element of a row that differs."""

    index: int
    left: float | str  # "nan", "inf" or "-inf" where JSON has no number for it
    right: float | str
    left_bits: str
    right_bits: str
    ulps: int | None
    elements: int  # how many of the row differ
    of: int


class Mismatch(Record):
    """Two calls whose bits differ, with a placement each."""

    axis: str
    k: int
    n: int
    inputs: str
    left: dict[str, int | str]
    right: dict[str, int | str]
    row: int
    difference: Difference
    rows_differ: int
    rows_compared: int


class Counterexample(Mismatch):
    cause: str
    evidence: str
    found_at: dict[str, int]
    replay: str


class AxisCount(Record):
    axis: str
    trials: int
    mismatches: int
    refused: int


class KernelVerdict(Record):
    target: str
    op: str
    implementation: str
    dtype: str
    threads: int
    verdict: VerdictName
    reason: str
    remedy: str | None = None
    detection_rate: float | None
    counterexample: Counterexample | None
    axes: list[AxisCount] = []

    @property
    def differs_on(self) -> list[str]:
        """Axes on which it was refuted; that of the counterexample where trees differ alone."""
        counted = [count.axis for count in self.axes if count.mismatches]
        example = self.counterexample
        shown = [] if example is None or example.axis in counted else [example.axis]
        return shown + counted

    @property
    def name(self) -> str:
        return f"{self.target}/{self.op}/{self.implementation}"


class Planted(Record):
    caught: int
    total: int
    missed: list[str]


class Skipped(Record):
    target: str
    reason: str


class KernelsCheck(Record):
    verdicts: list[KernelVerdict]
    planted: Planted
    environment: dict[str, Any]
    skipped: list[Skipped]


class KernelsReport(KernelsCheck):
    """A check that a service ran, with what was asked and when."""

    schema_version: str
    kind: Literal["kernels"]
    created_at: str
    request: KernelsRequest
