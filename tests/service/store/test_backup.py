"""Backups of both databases and every storage, made under load, restored into either."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, select

from driftscope_service.store import backup, migrate, tables
from driftscope_service.store.backup import BackupError, make_backup, read_backup
from driftscope_service.store.backup_restore import restore
from driftscope_service.store.database import Database, DatabaseAddress
from driftscope_service.store.identity import claim_storage, stored_id
from driftscope_service.store.storage.local import LocalStorage
from driftscope_service.store.storage.opening import open_storage

REPORT = "report_01JAAAAAAAAAAAAAAAAAAAAAAA"


def rows(database: Database) -> dict[str, list[Any]]:
    with database.read() as connection:
        return {
            table.name: list(connection.execute(select(table).order_by(*table.primary_key)))
            for table in backup.copied_tables()
            if table.name not in ("instances", "audit_log")
        }


@pytest.fixture(params=["sqlite", "postgresql"])
def settings_of(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "sqlite":
        return {}
    url: URL = request.getfixturevalue("postgresql_url")
    return {"database_url": url.render_as_string(hide_password=False)}


def restored_into(
    source: Path, address: DatabaseAddress, data_dir: Path, url: str = ""
) -> tuple[Database, Any]:
    data_dir.mkdir(exist_ok=True)
    migrate.upgrade(address)
    database, storage = Database(address), open_storage(url, data_dir)
    restore(source, database, storage, data_dir)
    return database, storage


def test_a_backup_under_load_is_one_moment(
    settings_of: dict[str, str],
    run_service: Any,
    pushing_to: Callable[..., Any],
    eventually: Any,
    tmp_path: Path,
) -> None:
    """Pushed, converted, dropped and deleted while it is made: in it, every row has its file."""
    stop, pushed = threading.Event(), list[int]()
    with run_service(token_ring_steps=4, **settings_of) as running:
        pushing = pushing_to(running)
        running.finished_report()

        def load(run: str) -> None:
            for step in range(10_000):
                if stop.is_set():
                    return
                answer = pushing.push(pushing.same(step), run=run, step=step)
                if answer.status_code == 503:  # a busy machine: the client sends it again
                    continue
                assert answer.status_code == 201, answer.text
                pushed.append(step)
                if step % 7 == 6:
                    pushing.client.delete(f"/v1/runs/{run}/steps/{step - 3}")

        with ThreadPoolExecutor(2) as pool:
            loads = [pool.submit(load, run) for run in ("a", "b")]
            made = []
            try:
                eventually(lambda: len(pushed) > 3)
                for number in range(2):
                    dest = tmp_path / f"backup{number}"
                    storage = LocalStorage(running.data_dir)
                    made.append(
                        make_backup(running.service.database, storage, running.data_dir, dest)
                    )
            finally:
                stop.set()
            for one in loads:
                one.result()
    for number, manifest in enumerate(made):
        assert manifest.missing == ()
        read, files = read_backup(tmp_path / f"backup{number}")
        assert read.files == len(files) == manifest.files
        database, restored = restored_into(
            tmp_path / f"backup{number}",
            tmp_path / f"restored{number}.db",
            tmp_path / f"restored{number}",
        )
        with database.read() as connection:
            kept = connection.execute(select(tables.steps).where(tables.steps.c.kept_bytes > 0))
            for step in kept:
                names = [raw["file"] for raw in step.raw_files or ()] or [step.tokens_file]
                sizes = [restored.size(f"steps/{name}") for name in names]
                assert None not in sizes and sum(sizes) == step.kept_bytes
            shown = connection.execute(select(tables.reports)).all()
        assert shown and all(restored.size(report.file) == report.size_bytes for report in shown)
        database.dispose()


def test_a_service_goes_on_from_a_backup(
    settings_of: dict[str, str], run_service: Any, pushing_to: Callable[..., Any], tmp_path: Path
) -> None:
    """From either database into SQLite, with the same ids and answers and another storage id."""
    with run_service(**settings_of) as running:
        pushing = pushing_to(running)
        answer = pushing.push(pushing.body())
        report = running.finished_report()
        said = running.client.get(f"/v1/reports/{report}").json()
        pushing.push(pushing.body(), step=2)
        assert pushing.client.delete("/v1/runs/r/steps/2").status_code in (200, 204)
        storage = LocalStorage(running.data_dir)
        (running.data_dir / "floors").mkdir(exist_ok=True)
        (running.data_dir / "floors" / "m.json").write_text("{}")
        manifest = make_backup(
            running.service.database, storage, running.data_dir, tmp_path / "backup"
        )
        original, before = stored_id(storage), rows(running.service.database)
    data_dir = tmp_path / "other"
    database, new = restored_into(tmp_path / "backup", data_dir / "driftscope.db", data_dir)
    assert rows(database) == before
    with database.read() as connection:
        assert backup.last_numbers(connection) == manifest.numbers
    database.dispose()
    assert stored_id(new) not in (None, original)
    assert (data_dir / "floors" / "m.json").read_text() == "{}"
    with run_service(data_dir=data_dir) as running:
        assert running.client.get("/v1/runs/r/steps/1").json() == answer.json()
        assert running.client.get(f"/v1/reports/{report}").json() == said
        pushing = pushing_to(running)
        assert pushing.push(pushing.body()).status_code == 200
        assert pushing.push(pushing.body(), step=3).status_code == 201


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A backup with a report, made on SQLite."""
    data_dir = tmp_path / "source"
    data_dir.mkdir()
    address = data_dir / "driftscope.db"
    migrate.upgrade(address)
    database, storage = Database(address), LocalStorage(data_dir)
    storage.write(f"reports/{REPORT}/report.json", b'{"kind": "paired"}')
    storage.write(f"reports/{REPORT}/pairs/a", b"pair")
    with database.write() as connection:
        at = datetime.now(UTC)
        job = {"id": "job_7", "kind": "paired", "state": "succeeded", "request": {"é": [1.5]}}
        progress = {"stage": "done", "fraction": 1.0, "detail": ""}
        connection.execute(tables.jobs.insert().values(number=7, **job, **progress, created_at=at))
        connection.execute(
            tables.reports.insert().values(
                number=41, id=REPORT, job_id="job_7", kind="paired", summary={"x": None},
                file=f"reports/{REPORT}/report.json", size_bytes=18, created_at=at,
            )
        )  # fmt: skip
    claim_storage(database, storage)
    make_backup(database, storage, data_dir, tmp_path / "backup")
    database.dispose()
    return tmp_path / "backup"


@pytest.mark.parametrize("url", ["", "s3"])
def test_sqlite_into_postgresql_and_back(
    filled: Path, tmp_path: Path, postgresql_url: URL, request: pytest.FixtureRequest, url: str
) -> None:
    url = request.getfixturevalue("s3_url") if url else ""
    database, storage = restored_into(filled, postgresql_url, tmp_path / "second", url)
    assert storage.read(f"reports/{REPORT}/pairs/a") == b"pair"
    with database.write() as connection:
        connection.execute(
            tables.schedules.insert().values(
                name="n", cron="* * * * *", kind="nightly", request={}, missed="once",
                next_at=connection.execute(select(tables.jobs.c.created_at)).scalar_one(),
            )
        )  # fmt: skip
        # Its number comes after those of the original.
        added = tables.jobs.insert().values(
            id="job_8", kind="k", state="queued", request={}, stage="", fraction=0.0, detail="",
            created_at=connection.execute(select(tables.jobs.c.created_at)).scalar_one(),
        ).returning(tables.jobs.c.number)  # fmt: skip
        assert connection.execute(added).scalar_one() == 8
    make_backup(database, storage, tmp_path / "second", tmp_path / "again")
    back, _ = restored_into(tmp_path / "again", tmp_path / "third.db", tmp_path / "third")
    assert rows(back) == rows(database)
    for opened in (back, database):
        opened.dispose()


def test_a_target_that_is_not_empty(filled: Path, tmp_path: Path) -> None:
    database, storage = restored_into(filled, tmp_path / "x.db", tmp_path / "x")
    with pytest.raises(BackupError, match="has rows in jobs, reports"):
        restore(filled, database, storage, tmp_path / "x")
    database.dispose()
    migrate.upgrade(tmp_path / "y.db")
    empty = Database(tmp_path / "y.db")
    with pytest.raises(BackupError, match="belongs to a database"):
        restore(filled, empty, storage, tmp_path)
    foreign = LocalStorage(tmp_path / "z")
    foreign.write(f"reports/{REPORT}/report.json", b"{}")
    with pytest.raises(BackupError, match="has files"):
        restore(filled, empty, foreign, tmp_path)
    empty.dispose()


@pytest.mark.parametrize(
    "damage", ["manifest.json", "files.jsonl", "database.sqlite", f"files/reports/{REPORT}/pairs/a"]
)
def test_a_damaged_backup_changes_nothing(filled: Path, tmp_path: Path, damage: str) -> None:
    path = filled / damage
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    migrate.upgrade(tmp_path / "x.db")
    database, storage = Database(tmp_path / "x.db"), LocalStorage(tmp_path / "x")
    if damage == "manifest.json":
        path.write_text("{}")
    with pytest.raises(BackupError, match="is no backup that can be restored"):
        restore(filled, database, storage, tmp_path)
    assert stored_id(storage) is None and not any(map(len, rows(database).values()))
    path.unlink()
    with pytest.raises(BackupError, match="missing|changed"):
        restore(filled, database, storage, tmp_path)
    database.dispose()


def test_files_that_are_missing_are_named(filled: Path, tmp_path: Path) -> None:
    database, storage = restored_into(filled, tmp_path / "x.db", tmp_path / "x")
    (tmp_path / "x" / "reports" / REPORT / "report.json").write_bytes(b"short")
    made = make_backup(database, storage, tmp_path / "x", tmp_path / "again")
    assert made.missing == (f"reports/{REPORT}/report.json",)
    storage.remove([f"reports/{REPORT}/report.json"])
    made = make_backup(database, storage, tmp_path / "x", tmp_path / "third")
    assert made.missing == (f"reports/{REPORT}/report.json",)
    with pytest.raises(BackupError, match="is not empty"):
        make_backup(database, storage, tmp_path / "x", tmp_path / "third")
    assert json.loads((tmp_path / "third" / "manifest.json").read_text())["files"] == 1
    database.dispose()
