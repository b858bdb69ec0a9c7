"""/healthz and /readyz, with one thing after the other put out of order."""

from __future__ import annotations

import shutil
from typing import Any

from driftscope_service.store import migrate


def not_ready(running: Any) -> dict[str, str]:
    answer = running.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["type"] == "/problems/not-ready"
    checks: dict[str, str] = answer.json()["checks"]
    return {name: result for name, result in checks.items() if result != "ok"}


def test_in_order(running: Any) -> None:
    assert running.client.get("/healthz").json()["status"] == "ok"
    ready = running.client.get("/readyz")
    assert ready.status_code == 200
    assert set(ready.json()["checks"].values()) == {"ok"}


def test_an_old_schema(running: Any) -> None:
    with running.service.database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    assert not_ready(running) == {
        "database": f"schema is 0000, this version needs {migrate.newest_revision()}"
    }
    assert running.client.get("/healthz").status_code == 200


def test_a_database_without_its_tables(running: Any) -> None:
    with running.service.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs RENAME TO gone")
    assert "no such table" in not_ready(running)["database"]
    with running.service.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO jobs")


def test_too_little_disk(run_service: Any) -> None:
    with run_service(min_free_disk_bytes=2**60) as running:
        assert "bytes free" in not_ready(running)["disk"]


def test_a_data_folder_that_is_gone(running: Any) -> None:
    moved = running.data_dir.with_name("moved")
    shutil.move(running.data_dir, moved)
    try:
        assert {"data_dir", "disk"} <= set(not_ready(running))
    finally:
        shutil.move(moved, running.data_dir)


def test_an_executor_that_is_gone(running: Any) -> None:
    running.service.executor.stop()
    assert not_ready(running) == {"executor": "a job slot has ended"}
