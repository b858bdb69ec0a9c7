"""Work folder of a finished probe -> report folder: report.json, report.html, pairs/, logs/."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from driftscope_service.export.report_html import render

REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
KEPT_FOLDERS = ("pairs", "logs")


def write_report(report: dict[str, Any], folder: Path) -> None:
    """Write both forms beside the files that the probe left in `folder`."""
    text = json.dumps(report, allow_nan=False, ensure_ascii=False, indent=1)
    (folder / REPORT_JSON).write_text(text + "\n", encoding="utf-8")
    (folder / REPORT_HTML).write_text(render(report), encoding="utf-8")
    _keep_logs(folder)
    for leftover in ("request.json", "result.json"):
        (folder / leftover).unlink(missing_ok=True)


def _keep_logs(folder: Path) -> None:
    """Of each step's work folder only its log is worth keeping; pairs/ holds what it computed."""
    logs = folder / "logs"
    logs.mkdir()
    for log in sorted(folder.rglob("log.txt")):
        step = "-".join(log.parent.relative_to(folder).parts) or "probe"
        log.rename(logs / f"{step}.txt")
    for step_folder in folder.iterdir():
        if step_folder.is_dir() and step_folder.name not in KEPT_FOLDERS:
            shutil.rmtree(step_folder)
