"""A report that was made elsewhere into the store: checked as its readers take it, known again by
its content.

In: the JSON of a report, where it was made, and perhaps the folder with the files that it names.
Out: the id of the stored report, and whether it is new.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection
from sqlalchemy.exc import DataError, IntegrityError

from driftscope_probes.errors import ProbeError
from driftscope_service.experiments.kind import MOST_REASON, UNFIT, Kind, Report, draw_once
from driftscope_service.experiments.record import store_report
from driftscope_service.experiments.store import (
    Origin,
    ReportFiles,
    ReportRepository,
    content_sha256,
)
from driftscope_service.jobs.store import JobRepository
from driftscope_service.store.database import Database
from driftscope_service.store.tables import MODEL_NAME_LENGTH


class ReportRefused(ProbeError):
    """What was handed in is not a report of its kind."""

    def __init__(self, message: str, *, pointer: str = "") -> None:
        remedy = "send the JSON that the command printed with --json, or its report.json."
        super().__init__(message, remedy=remedy)
        self.pointer = pointer  # RFC 6901, into the report


class _Known(Exception):
    """Found in the very transaction that would have stored it again."""

    def __init__(self, report_id: str) -> None:
        self.report_id = report_id


@dataclass(frozen=True, slots=True)
class Submitted:
    report_id: str
    new: bool


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where reports are stored."""

    data_dir: Path
    database: Database
    files: ReportFiles
    kinds: Mapping[str, Kind]


def submit(
    report: Report, shelf: Shelf, *, origin: Origin | None = None, folder: Path | None = None
) -> Submitted:
    """Raises ReportRefused. `folder`: has the pair files that the report names; they are copied."""
    kind = _kind(report, shelf.kinds)
    held = _without_missing_files(_checked(report, kind), folder)
    sha256 = content_sha256(held)

    def known(connection: Connection) -> str | None:
        same = ReportRepository(connection).with_content(sha256)
        return kind.same_work(held, connection) if same is None else same.id

    with shelf.database.read() as connection:
        there = known(connection)
    if there is not None:
        return Submitted(there, new=False)
    model = _model(held, kind)

    def job_of(connection: Connection) -> str:
        there = known(connection)
        if there is not None:
            raise _Known(there)
        request = {"kind": kind.name, "request": held.get("request", {}), "handed_in": True}
        return JobRepository(connection).add_succeeded(kind.name, model, request).id

    try:
        with _copied(held, folder, shelf.data_dir) as workdir:
            file = store_report(
                held,
                kind=kind,
                model=model,
                workdir=workdir,
                job_of=job_of,
                database=shelf.database,
                files=shelf.files,
                origin=origin,
            )
    except _Known as same:
        return Submitted(same.report_id, new=False)
    except (IntegrityError, DataError) as error:
        raise ReportRefused(f"its verdicts cannot be stored: {error.orig}.") from error
    return Submitted(file.report_id, new=True)


def _kind(report: Report, kinds: Mapping[str, Kind]) -> Kind:
    name = report.get("kind")
    if not isinstance(name, str) or name not in kinds:
        raise ReportRefused(
            f"{str(name)[:80]!r} is no kind of report here; there are {', '.join(kinds)}.",
            pointer="/kind",
        )
    return kinds[name]


def _checked(report: Report, kind: Kind) -> dict[str, Any]:
    """As it is stored: read, summed up and drawn once, so that no page fails at it later."""
    try:
        held = dict(kind.check_submitted(report))
        draw_once(held, kind)
    except ValidationError as error:
        first = error.errors()[0]
        pointer = "".join(f"/{part}" for part in first["loc"])[:MOST_REASON]
        raise ReportRefused(
            f"it is no report of kind {kind.name}: {first['msg'][:MOST_REASON]}.", pointer=pointer
        ) from None
    except UNFIT as error:
        reason = f"{type(error).__name__}: {error}"[:MOST_REASON]
        raise ReportRefused(f"it is no report of kind {kind.name}: {reason}.") from None
    return held


def _model(report: Report, kind: Kind) -> str | None:
    """The end of a name that is too long: of a folder it says the most."""
    if not kind.of_a_model:
        return None
    try:
        return str(report["model"]["name"])[-MODEL_NAME_LENGTH:]
    except (LookupError, TypeError):
        raise ReportRefused("it does not name its model.", pointer="/model/name") from None


def _without_missing_files(report: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    if "grid" not in report:
        return report
    cells = [{**cell, "pair_file": _kept(cell.get("pair_file"), folder)} for cell in report["grid"]]
    return {**report, "grid": cells}


def _kept(name: str | None, folder: Path | None) -> str | None:
    if name is None or folder is None:
        return None
    path = (folder / name).resolve()
    return name if path.is_relative_to(folder.resolve()) and path.is_file() else None


@contextmanager
def _copied(report: Report, folder: Path | None, data_dir: Path) -> Iterator[Path]:
    """A folder with what the report names, of which the store takes hold."""
    with tempfile.TemporaryDirectory(dir=data_dir) as made:
        work = Path(made)
        for cell in report.get("grid", ()):
            if folder is not None and cell["pair_file"] is not None:
                (work / cell["pair_file"]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / cell["pair_file"], work / cell["pair_file"])
        yield work
