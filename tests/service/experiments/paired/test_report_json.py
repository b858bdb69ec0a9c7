"""The report without its plot data."""

from __future__ import annotations

from typing import Any

from driftscope_probes.paired.report import PairedReport
from driftscope_service.experiments.paired.html import without_profiles


def test_only_the_profiles_go_and_the_report_stays(report: dict[str, Any]) -> None:
    printed = without_profiles(PairedReport.read(report))
    assert printed.keys() == report.keys()
    for cell, original in zip(printed["grid"], report["grid"], strict=True):
        assert original.keys() - cell.keys() == {"profiles"}
        assert cell == {name: original[name] for name in cell}
