"""Jobs, reports and nights go by age and number; what something rests on stays."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select
from ulid import ULID

from driftscope_service.auth.audit import Actor, AuditLog
from driftscope_service.experiments.retention import RETENTION_LEASE, Retention
from driftscope_service.experiments.store import ReportFiles
from driftscope_service.store import tables
from driftscope_service.store.database import Database
from driftscope_service.store.leases import LeaseRepository
from driftscope_service.store.retention import Kept
from driftscope_service.store.storage.local import LocalStorage

NOW = datetime.now(UTC)
DONE = {"stage": "done", "fraction": 1.0, "detail": ""}


class Shelf:
    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.files = ReportFiles(LocalStorage(folder))

    def job(self, days: float, state: str = "failed") -> str:
        identifier, at = f"job_{ULID()}", NOW - timedelta(days=days)
        self._add(
            tables.jobs,
            **{"id": identifier, "kind": "paired", "state": state, "request": {}, **DONE},
            **{"created_at": at, "finished_at": None if state == "running" else at},
        )
        (self.folder / "jobs" / identifier).mkdir(parents=True)
        return identifier

    def report(
        self, days: float, *, kind: str = "paired", model: str | None = "m", run: str | None = None
    ) -> str:
        job = self.job(days, "succeeded")
        stored = self.files.write({"kind": kind}, self.folder)
        self._add(
            tables.reports,
            **{"id": stored.report_id, "job_id": job, "kind": kind, "model": model},
            **{"file": stored.path, "size_bytes": stored.size_bytes},
            summary={} if run is None else {"of_step": {"run": run, "step": 1}},
            created_at=NOW - timedelta(days=days),
        )
        return stored.report_id

    def night(self, days: float, config: str = "c") -> str:
        report, at = self.report(days, kind="nightly", model=None), NOW - timedelta(days=days)
        self._add(
            tables.nightly_runs,
            **{"report_id": report, "config_name": config, "config_sha256": config * 64},
            **{"started_at": at, "finished_at": at, "exit_code": 0, "outcomes": []},
        )
        return report

    def verdict(self, report: str) -> None:
        names = {"target": "t", "op": "o", "implementation": "i", "dtype": "d", "threads": 1}
        self._add(tables.kernel_verdicts, **names, verdict="equal", report_id=report)

    def pinned(self, run: str) -> None:
        at = {"created_at": NOW, "updated_at": NOW, "pinned_at": NOW}
        self._add(tables.runs, name=run, labels={}, activity=1, complete_steps=0, **at)

    def apply(self, **kept: Any) -> int:
        retention = Retention(self.database, self.files, self.folder, "a", Kept(**kept))
        return retention.apply()

    def ids(self, table: Any) -> set[str]:
        with self.database.read() as connection:
            return {row.id for row in connection.execute(select(table.c.id))}

    def _add(self, table: Any, **values: Any) -> None:
        with self.database.write() as connection:
            connection.execute(insert(table).values(**values))


@pytest.fixture
def shelf(database: Database, tmp_path: Path) -> Shelf:
    return Shelf(database, tmp_path / "data")


def test_by_default_everything_stays(shelf: Shelf) -> None:
    for make in (shelf.job, shelf.report, shelf.night):
        make(900), make(800)
    assert shelf.apply() == 0


def test_jobs_by_age(shelf: Shelf) -> None:
    kept = {shelf.job(1), shelf.job(30, "running"), shelf.job(30, "queued")}
    gone = shelf.job(30)
    report = shelf.report(30)
    assert shelf.apply(job_days=7) == 1
    assert kept < shelf.ids(tables.jobs) and gone not in shelf.ids(tables.jobs)
    assert not (shelf.folder / "jobs" / gone).exists()
    assert shelf.ids(tables.reports) == {report}


def test_reports_by_age_and_number(shelf: Shelf) -> None:
    old, newer, newest = (shelf.report(days) for days in (40, 20, 1))
    alone = shelf.report(90, model="other")
    assert shelf.apply(report_days=30) == 1
    assert shelf.ids(tables.reports) == {newer, newest, alone}
    assert shelf.apply(reports=1) == 1
    assert shelf.ids(tables.reports) == {newest, alone}
    assert len(shelf.ids(tables.jobs)) == 2
    left = {path.parent.name for path in shelf.folder.glob("reports/*/report.json")}
    assert left == {newest, alone} and old not in left


def test_what_something_rests_on_stays(shelf: Shelf) -> None:
    held, pinned = shelf.report(90), shelf.report(80, run="baseline")
    unpinned, newest = shelf.report(70, run="other"), shelf.report(60)
    shelf.verdict(held)
    shelf.pinned("baseline")
    assert shelf.apply(report_days=1, reports=1) == 1
    assert shelf.ids(tables.reports) == {held, pinned, newest}
    assert unpinned


def test_nights_by_age_and_number(shelf: Shelf) -> None:
    nights = [shelf.night(days) for days in (40, 30, 20, 10)]
    alone = shelf.night(90, config="d")
    assert shelf.apply(nights=3, report_days=1, reports=1) == 1
    assert shelf.ids(tables.reports) == {*nights[1:], alone}
    assert shelf.apply(night_days=15) == 2
    assert shelf.ids(tables.reports) == {nights[3], alone}


def test_one_entry_of_the_audit_log_and_one_instance(shelf: Shelf) -> None:
    shelf.report(40), shelf.report(30), shelf.report(1), shelf.job(40), shelf.night(40)
    shelf.night(2)
    with shelf.database.write() as connection:
        LeaseRepository(connection).take(RETENTION_LEASE, "another", 60.0)
    everything = {"job_days": 7, "report_days": 7, "night_days": 7}
    assert shelf.apply(**everything) == 0
    with shelf.database.write() as connection:
        LeaseRepository(connection).release(RETENTION_LEASE, "another")
    assert shelf.apply(**everything) == 4
    with shelf.database.read() as connection:
        (entry,) = AuditLog(connection).page(10)
    assert (entry.actor, entry.action) == (Actor.SERVICE, "retention.applied")
    assert entry.detail == {"reports": 2, "nights": 1, "jobs": 1}


def test_a_service_applies_it(
    run_service: Callable[..., Any], eventually: Callable[[Callable[[], bool]], None]
) -> None:
    with run_service() as running:
        first = running.finished_report()
    with run_service(keep_reports=1) as running:
        second = running.finished_report()
        assert running.client.get(f"/v1/reports/{second}").status_code == 200
        running.service.retention.apply()
        assert running.client.get(f"/v1/reports/{first}").status_code == 404
