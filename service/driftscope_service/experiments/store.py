"""Reports: their files in the storage and their rows in the database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, delete, func, insert, select

from driftscope_service.store.storage.base import REPORTS, Storage
from driftscope_service.store.tables import new_id, reports


@dataclass(frozen=True, slots=True)
class ReportFile:
    report_id: str
    path: str  # of report.json in the storage
    size_bytes: int
    content_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a report was made that no job of this service made, as its maker says."""

    host: str
    command: str  # as it was typed

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def content_sha256(report: Mapping[str, Any]) -> str:
    """Of what a report says, whatever the order of its keys; not of the files beside it."""
    said = dict(report)
    if "grid" in said:
        said["grid"] = [{**cell, "pair_file": None} for cell in said["grid"]]
    text = json.dumps(said, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


#: A step's page links so many reports of it; a later one says more than earlier ones.
MOST_OF_STEP: Final = 5


class ReportFiles:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def write(self, report: Mapping[str, Any], workdir: Path) -> ReportFile:
        """Store `report`; the pair files that it names are moved over from `workdir`."""
        text = json.dumps(dict(report), allow_nan=False).encode()
        sources = [(name, _inside(workdir, name)) for name in _pair_files(report)]
        report_id = new_id("report")
        path = f"{REPORTS}/{report_id}/report.json"
        try:
            for name, source in sources:
                self._storage.put(f"{REPORTS}/{report_id}/{name}", source)
            # Last, and then its row: a report that can be found has all its files.
            self._storage.write(path, text)
        except Exception:
            self.discard(report_id)
            raise
        return ReportFile(report_id, path, len(text), content_sha256(report))

    def path(self, file: str) -> Path:
        """A local file with the content, as the report table names it. Raises FileNotFoundError."""
        return self._storage.path(file)

    def content(self, report: StoredReport) -> dict[str, Any] | None:
        """None if its file is missing."""
        try:
            text = self.path(report.file).read_bytes()
        except FileNotFoundError:
            return None
        content: dict[str, Any] = json.loads(text)
        return content

    def discard(self, report_id: str) -> None:
        """Remove a report that could not be recorded, or that was deleted."""
        with suppress(OSError):  # what stays is swept away
            folder = f"{REPORTS}/{report_id}"
            self._storage.remove([file.name for file in self._storage.files(folder)])


def _pair_files(report: Mapping[str, Any]) -> list[str]:
    """None where the report is of a kind without a grid."""
    cells = report.get("grid", ())
    return [cell["pair_file"] for cell in cells if cell.get("pair_file") is not None]


def _inside(folder: Path, name: str) -> Path:
    source = (folder / name).resolve()
    assert source.is_relative_to(folder.resolve()), f"{name} leaves its folder"
    return source


@dataclass(frozen=True, slots=True)
class StoredReport:
    id: str
    job_id: str
    kind: str
    model: str | None
    summary: dict[str, Any]  # of Kind.summarise
    file: str  # of report.json in the storage
    size_bytes: int
    created_at: datetime
    origin: dict[str, str] | None = None  # of Origin
    content_sha256: str | None = None  # None: stored by an older version


class ReportRepository:
    """Works within the transaction of `connection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(
        self,
        file: ReportFile,
        *,
        job_id: str,
        kind: str,
        model: str | None,
        summary: Mapping[str, Any],
        origin: Origin | None = None,
    ) -> None:
        self._connection.execute(
            insert(reports).values(
                id=file.report_id,
                job_id=job_id,
                kind=kind,
                model=model,
                summary=dict(summary),
                file=file.path,
                size_bytes=file.size_bytes,
                created_at=datetime.now(UTC),
                origin=None if origin is None else origin.to_dict(),
                content_sha256=file.content_sha256,
            )
        )

    def get(self, report_id: str) -> StoredReport | None:
        return self._first(select(reports).where(reports.c.id == report_id))

    def with_content(self, sha256: str) -> StoredReport | None:
        """The first one that says just this."""
        return self._first(
            select(reports).where(reports.c.content_sha256 == sha256).order_by(reports.c.number)
        )

    def of_step(self, run: str, step: int) -> list[StoredReport]:
        """Those whose summary says that they were made of this pushed step, newest first."""
        source = reports.c.summary["of_step"]
        rows = self._connection.execute(
            select(reports)
            .where(source["run"].as_string() == run, source["step"].as_integer() == step)
            .order_by(reports.c.number.desc())
            .limit(MOST_OF_STEP)
        )
        return [_report(row) for row in rows]

    def remove(self, report_id: str) -> None:
        """Its row alone: what refers to it goes first."""
        self._connection.execute(delete(reports).where(reports.c.id == report_id))

    def _first(self, statement: Select[Any]) -> StoredReport | None:
        row = self._connection.execute(statement.limit(1)).one_or_none()
        return None if row is None else _report(row)

    def latest(self, kind: str) -> StoredReport | None:
        return self._first(
            select(reports).where(reports.c.kind == kind).order_by(reports.c.number.desc())
        )

    def latest_per_model(self, kind: str) -> list[StoredReport]:
        """The last one of every model, by model name."""
        newest = select(func.max(reports.c.number)).where(reports.c.kind == kind).group_by("model")
        rows = self._connection.execute(
            select(reports).where(reports.c.number.in_(newest)).order_by(reports.c.model)
        )
        return [_report(row) for row in rows]


def _report(row: Row[Any]) -> StoredReport:
    fields = dict(row._mapping)
    del fields["number"]
    return StoredReport(**fields)


@dataclass(frozen=True, slots=True)
class ListedReport:
    number: int
    id: str
    job_id: str
    kind: str
    model: str | None
    summary: dict[str, Any]  # of Kind.summarise
    created_at: datetime
    origin: dict[str, str] | None  # of Origin


def latest_reports(
    connection: Connection, kind: str | None, limit: int, *, before: int | None = None
) -> list[ListedReport]:
    """Newest first, of one kind or of all. `before` is the number of the last one seen."""
    names = ListedReport.__dataclass_fields__
    columns = (reports.c[name] for name in names)
    statement = select(*columns).order_by(reports.c.number.desc()).limit(limit)
    if kind is not None:
        statement = statement.where(reports.c.kind == kind)
    if before is not None:
        statement = statement.where(reports.c.number < before)
    return [ListedReport(*row) for row in connection.execute(statement)]


def report_counts(connection: Connection) -> dict[str, int]:
    """By kind; a kind without a report is left out."""
    rows = connection.execute(select(reports.c.kind, func.count()).group_by(reports.c.kind))
    return {kind: count for kind, count in rows}
