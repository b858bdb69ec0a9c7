"""docs/diagnose.md: its table is the registry's, and its limits are the planner's."""

from __future__ import annotations

from pathlib import Path

from driftscope_probes.diagnose.recorded import MOST_SEQUENCES
from driftscope_probes.diagnosis.control_table import with_table
from driftscope_probes.diagnosis.controls.registry import CONTROLS
from driftscope_probes.diagnosis.planner import LEAST_GAIN_BITS, SURE_FROM

PAGE = Path(__file__).parents[2] / "docs" / "diagnose.md"


def test_the_table_is_that_of_the_registry() -> None:
    """Print anew with python -m driftscope_probes.diagnosis.control_table docs/diagnose.md."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_table(text)
    assert all(f"| `{control.name}` |" in text for control in CONTROLS)


def test_its_numbers_are_those_of_the_planner() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"One cause has {SURE_FROM:.0%}".replace("%", " %") in text
    assert f"tell {LEAST_GAIN_BITS} bit" in text
    assert f"at most {MOST_SEQUENCES} whole" in text
