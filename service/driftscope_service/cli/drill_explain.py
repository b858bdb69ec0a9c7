"""`driftscope drill --explain`: bugs planted in live pairs, and what `explain` says of each.

The work is done in a process of its own: the service itself never imports torch.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from driftscope_probes.crashes import explain_probe_crash
from driftscope_probes.explain.planted.page import page
from driftscope_probes.explain.planted.report import LocalisationReport
from driftscope_probes.explain.planted.run import LocalisationRequest
from driftscope_service.terminal.commands import checked, print_result, run_child

RUNNER: Final = "driftscope_probes.explain.planted.run"


def drill_explain(
    asked: Mapping[str, Any], page_file: Path | None, json_: bool
) -> LocalisationReport:
    """Prints the report. `page_file`: its page; the cases go beside it as JSON."""
    request = checked(LocalisationRequest, dict(asked), command="drill", whole="options")
    with tempfile.TemporaryDirectory(prefix="driftscope-") as folder:
        sent = {"kind": "drill", "runner": RUNNER, "request": request.model_dump(mode="json")}
        result = run_child("driftscope_probes.run_probe", sent, Path(folder), explain_probe_crash)
    report = LocalisationReport.read(result)
    if page_file is not None:
        lines = ",\n".join(json.dumps(case.to_dict()) for case in report.cases)
        rest = {name: value for name, value in report.to_dict().items() if name != "cases"}
        # A case a line: what changed is seen in a diff.
        text = json.dumps(rest)[:-1] + ', "cases": [\n' + lines + "\n]}\n"
        page_file.with_suffix(".json").write_text(text, encoding="utf-8")
        page_file.write_text(page(report, datetime.now(UTC).date()), encoding="utf-8")
    summary = {
        "right_op": report.right_op,
        "right_reason": report.right_reason,
        "planted": len(report.planted),
        "healthy": len(report.healthy),
        "healthy_false_alarms": report.false_alarms,
    }
    shown = result | {"summary": summary}
    print_result(shown, json_, lambda _, console: _print(report, console))
    return report


def _print(report: LocalisationReport, console: Console) -> None:
    table = Table("bug", "planted", "right op", "right reason", box=SIMPLE_HEAD)
    for name in dict.fromkeys(case.bug for case in report.planted):
        own = [case for case in report.planted if case.bug == name]
        right, reason = sum(c.right_op for c in own), sum(c.right_reason for c in own)
        table.add_row(str(name), str(len(own)), str(right), str(reason))
    console.print(table)
    for case in report.planted:
        if not case.right_reason:
            first = f"{case.first_layer} {case.first_site}"
            console.print(Text(f"{case.bug} in {case.pair}, layer {case.layer}: {first}"))
    healthy = f"{report.false_alarms} of {len(report.healthy)} healthy pairs with a fault"
    console.print(
        Text(f"{report.right_op:.1%} right op, {report.right_reason:.1%} right reason; {healthy}")
    )
    for missed in report.shortfalls():
        console.print(Text(f"Missed: {missed}", style="bold"))
