"""`driftscope drill --controls`: planted systems, each asked about until the planner has an answer.

The work is done in a process of its own: the service itself never imports torch.
"""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from driftscope_probes.crashes import explain_probe_crash
from driftscope_probes.diagnosis.drill.planted.page import page
from driftscope_probes.diagnosis.drill.planted.report import (
    HEALTHY,
    CaseRun,
    ControlsReport,
    matrix,
)
from driftscope_probes.diagnosis.drill.planted.request import ControlsRequest
from driftscope_probes.errors import RequestError
from driftscope_service.terminal.commands import checked, print_result, run_child

RUNNER = "driftscope_probes.diagnose.planted_run"


def drill_controls(asked: dict[str, Any], page_file: Path | None, json_: bool) -> ControlsReport:
    """Prints the report. `page_file`: the page of all recorded cases, which stand beside it."""
    request = checked(ControlsRequest, asked, command="drill", whole="options")
    with tempfile.TemporaryDirectory(prefix="driftscope-") as folder:
        sent = {
            "kind": "drill",
            "runner": RUNNER,
            "request": request.model_dump(mode="json"),
        }
        result = run_child("driftscope_probes.run_probe", sent, Path(folder), explain_probe_crash)
    report = ControlsReport.read(result)
    if page_file is not None:
        keep(report, page_file)
    shown = result | {"summary": report.summary()}
    print_result(shown, json_, lambda _, console: print_controls(report, console))
    return report


def keep(report: ControlsReport, page_file: Path) -> None:
    """Add the cases to those that stand beside the page, and write the page of all."""
    records = page_file.with_suffix(".json")
    whole = report
    if records.exists():
        try:
            known = ControlsReport.read(json.loads(records.read_text(encoding="utf-8")))
        except (ValueError, ValidationError) as error:
            raise RequestError(
                f"{records} does not hold recorded controls: {error}",
                remedy="remove it, or give --markdown another name.",
            ) from error
        whole = known.joined(report)
    whole = whole.to_keep()
    lines = ",\n".join(json.dumps(case.to_dict()) for case in whole.cases)
    rest = {name: value for name, value in whole.to_dict().items() if name != "cases"}
    # A case a line: what changed is seen in a diff.
    text = json.dumps(rest)[:-1] + ', "cases": [\n' + lines + "\n]}\n"
    records.write_text(text, encoding="utf-8")
    page_file.write_text(page(whole, datetime.now(UTC).date()), encoding="utf-8")


def print_controls(report: ControlsReport, console: Console) -> None:
    cases = _table("planted", "answer", "confidence", "controls", "fixed order", "seconds")
    for case in report.planted:
        cases.add_row(*_case_row(case))
    if report.planted:
        console.print(cases)
    rows = _table("control", "its faults caught", "healthy pairs, false", "seconds")
    for row in matrix(report.cases):
        if row.planted or row.healthy:
            seconds = "–" if row.seconds is None else f"{row.seconds:.1f}"
            caught = f"{row.caught} of {row.planted}" if row.planted else "–"
            false = f"{row.false} of {row.healthy}" if row.healthy else "–"
            rows.add_row(row.control, caught, false, seconds)
    console.print(rows)
    for case in report.cases:
        if case.cause == HEALTHY and case.error:
            console.print(Text(f"A healthy pair failed: {case.error}", "yellow"))
    for missed in report.shortfalls():
        console.print(Text(f"Missed: {missed}.", "bold red"))


def _case_row(case: CaseRun) -> tuple[str, ...]:
    fixed = "–" if case.fixed_controls is None else str(case.fixed_controls)
    answer = case.error or str(case.answer)
    confidence = "–" if case.confidence is None else f"{case.confidence:.2f}"
    shown = answer if case.right else f"{answer} (wrong)"
    return (case.cause, shown, confidence, str(case.planner_controls), fixed, f"{case.seconds:.0f}")


def _table(*heads: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    return table
