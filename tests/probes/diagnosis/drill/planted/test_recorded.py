"""docs/controls.json: every control was held against a planted fault and against healthy pairs."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from driftscope_probes.diagnosis.cause_pages import recorded_controls
from driftscope_probes.diagnosis.controls.registry import CONTROLS
from driftscope_probes.diagnosis.drill.planted.page import page
from driftscope_probes.diagnosis.drill.planted.report import RIGHT_AT_LEAST, matrix

ROOT = Path(__file__).parents[5]
PAGE = ROOT / "docs" / "controls.md"
RECORDED = recorded_controls(PAGE.with_suffix(".json"))
CONTROL_TESTS = ROOT / "tests" / "probes" / "diagnosis" / "controls"
#: Held against their faults by tests of their own, in which the name stands: in bf16 the rest of a
#: vLLM engine hides the order in which a norm casts; rounding alone is no fault that the drill
#: plants.
ELSEWHERE = {
    "norm_cast_order": ("trainer/test_norms.py", "NORM_CAST_ORDER"),
    "dtypes_fp32": ("trainer/test_dtypes.py", "DTYPES_FP32"),
    # Runs the folders in a process of its own, which the drill's hooks do not reach.
    "explain_ops": ("weights/test_weights_controls.py", "explain_ops"),
}


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_every_control_caught_its_planted_fault(control: object) -> None:
    """A new control needs a system of its own in planted/systems.py and a run of the drill."""
    name = getattr(control, "name", "")
    assert RECORDED is not None
    row = next(row for row in matrix(RECORDED.cases) if row.control == name)
    if name in ELSEWHERE and not row.planted:
        file, said = ELSEWHERE[name]
        assert said in (CONTROL_TESTS / file).read_text(encoding="utf-8")
        return
    assert row.planted and row.caught == row.planted, row
    assert row.false == 0, row


def test_the_planner_was_right() -> None:
    assert RECORDED is not None
    assert RECORDED.right is not None and RECORDED.right >= RIGHT_AT_LEAST
    assert RECORDED.fewer is not None
    planner, fixed, _ = RECORDED.fewer
    assert planner < fixed


def test_the_page_is_that_of_the_records() -> None:
    text = PAGE.read_text(encoding="utf-8")
    day = date.fromisoformat(text.partition("- date: ")[2].partition(";")[0])
    assert RECORDED is not None
    assert text == page(RECORDED, day)
