"""The report as the command line prints it with --json: all numbers, none of the plot data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def without_profiles(report: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the report whose cells have no `profiles`; the report itself is left as it is."""
    grid = [
        {name: value for name, value in cell.items() if name != "profiles"}
        for cell in report["grid"]
    ]
    return {**report, "grid": grid}
