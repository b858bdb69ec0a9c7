"""Reports on disk: DATA_DIR/reports/<id>/report.json, beside it the pair files of a paired one.

A folder appears under its final name only when it is whole and on disk.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftscope_service.store.identifier import new_id

_PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class ReportFile:
    report_id: str
    path: str  # of report.json, relative to the data folder
    size_bytes: int


class ReportFiles:
    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._root = data_dir / "reports"

    def write(self, report: Mapping[str, Any], workdir: Path) -> ReportFile:
        """Store `report`; the pair files that it names are moved over from `workdir`."""
        report_id = new_id("report")
        folder, partial = self._root / report_id, self._root / (report_id + _PARTIAL)
        partial.mkdir(parents=True)
        for name in _pair_files(report):
            _move(workdir, name, partial)
        text = json.dumps(dict(report), allow_nan=False).encode("utf-8")
        with open(partial / "report.json", "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(folder)
        _sync_folder(self._root)
        file_path = (folder / "report.json").relative_to(self._data_dir)
        return ReportFile(report_id, file_path.as_posix(), len(text))

    def path(self, file: str) -> Path:
        """Of a report's file as the report table names it."""
        return self._data_dir / file

    def discard(self, file: ReportFile) -> None:
        """Remove a report that could not be recorded."""
        shutil.rmtree(self._root / file.report_id)

    def sweep(self) -> None:
        """Remove what a killed service left half-written."""
        for partial in self._root.glob("*" + _PARTIAL):
            shutil.rmtree(partial)


def _pair_files(report: Mapping[str, Any]) -> list[str]:
    """None where the report is of a kind without a grid."""
    cells = report.get("grid", ())
    return [cell["pair_file"] for cell in cells if cell.get("pair_file") is not None]


def _move(source: Path, name: str, target: Path) -> None:
    assert (source / name).resolve().is_relative_to(source.resolve()), f"{name} leaves its folder"
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    (source / name).rename(target / name)


def _sync_folder(folder: Path) -> None:
    """A rename is only durable once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
