"""Migrations: from empty to head, model and schema agree, a newer file is refused."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    JSON,
    URL,
    Column,
    Connection,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    make_url,
    select,
    text,
)

from driftscope_service.jobs.store import JobRepository
from driftscope_service.runs.store.attempts import AttemptRepository
from driftscope_service.runs.store.runs import RunRepository
from driftscope_service.runs.store.steps import StepRepository
from driftscope_service.runs.store.uploads import ShardRepository
from driftscope_service.store import migrate
from driftscope_service.store.database import Database, DatabaseAddress
from driftscope_service.store.tables import metadata


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "100% test.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    migrate.upgrade(path)
    database = Database(path)
    yield database
    database.dispose()


def test_postgresql_has_the_tables_of_the_code_too(postgresql_url: URL) -> None:
    migrate.upgrade(postgresql_url)
    database = Database(postgresql_url)
    assert differences(database) == []
    with database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs DROP COLUMN detail")
    assert differences(database)
    database.dispose()


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    url = make_url("postgresql://me:secret@127.0.0.1:1/name")
    with pytest.raises(migrate.MigrationError, match=r"me:\*\*\*@127.0.0.1:1/name") as caught:
        migrate.upgrade(url)
    assert "secret" not in str(caught.value)


def differences(database: Database) -> list[object]:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))


def test_from_empty_to_head_gives_the_tables_of_the_code(database: Database) -> None:
    with database.read() as connection:
        assert migrate.current_revision(connection) == migrate.newest_revision()
    assert differences(database) == []


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE jobs ADD COLUMN owner TEXT",
        "ALTER TABLE jobs DROP COLUMN detail",
        "DROP INDEX ix_jobs_state_number",
        "CREATE TABLE extra (number INTEGER)",
    ],
)
def test_the_comparison_sees_a_difference(database: Database, change: str) -> None:
    with database.write() as connection:
        connection.exec_driver_sql(change)
    assert differences(database)


def test_twice_changes_nothing_and_keeps_rows(database: Database, path: Path) -> None:
    with database.write() as connection:
        job = JobRepository(connection).add("paired", "m", {"prompts": ["é"]})
    migrate.upgrade(path)
    with database.read() as connection:
        assert JobRepository(connection).get(job.id) == job
        assert JobRepository(connection).request_of(job.id) == {"prompts": ["é"]}


def test_rows_of_before_kernel_probes_are_kept(path: Path) -> None:
    """0004 rebuilds two tables, one of which refers to the other."""
    migrate.upgrade(path, "0003")
    with closing(sqlite3.connect(path)) as connection:
        for number in (1, 2, 5):
            connection.execute(
                "INSERT INTO jobs (number, id, kind, state, model, request, stage, fraction, "
                "detail, created_at) VALUES (?, ?, 'paired', 'succeeded', 'm', '{}', 's', 1.0, "
                "'', '2026-11-22 12:00:00')",
                (number, f"job_{number}"),
            )
            connection.execute(
                "INSERT INTO reports (number, id, job_id, kind, model, summary, file, size_bytes, "
                "created_at) VALUES (?, ?, ?, 'paired', 'm', '{}', 'f', 1, '2026-11-22 12:00:00')",
                (number, f"report_{number}", f"job_{number}"),
            )
        connection.execute("DELETE FROM reports WHERE number = 5")
        connection.commit()
        before = [
            connection.execute(f"SELECT {columns} FROM {name}").fetchall()
            for name, columns in MIGRATED.items()
        ]
    migrate.upgrade(path)
    with closing(sqlite3.connect(path)) as connection:
        after = [
            connection.execute(f"SELECT {columns} FROM {name}").fetchall()
            for name, columns in MIGRATED.items()
        ]
    assert after == before
    database = Database(path)
    with database.write() as connection:
        added = JobRepository(connection).add("kernels", None, {})
        assert (added.number, added.model) == (6, None)
        assert JobRepository(connection).get("job_2").report_id == "report_2"  # type: ignore[union-attr]
    assert differences(database) == []
    database.dispose()


#: What the tables had then; later versions add columns.
MIGRATED = {
    "jobs": "number, id, kind, state, model, request, stage, fraction, detail, error, "
    "cancel_requested_at, created_at, started_at, finished_at",
    "reports": "number, id, job_id, kind, model, summary, file, size_bytes, created_at",
}

RUN = (
    "INSERT INTO runs (number, name, labels, created_at, updated_at, activity, complete_steps) "
    "VALUES ({number}, 'run-{number}', '{{}}', '2026-11-22 12:00:00', '2026-11-22 12:00:00', "
    "{number}, 0)"
)
STEP = (
    "INSERT INTO steps (run_number, step, content_sha256, received_at, tokens, sequences, "
    "size_bytes, shards, kept_bytes, crossed, series, metadata, analysis) VALUES ({run}, {step}, "
    "'0', '2026-11-22 12:00:00', {tokens}, 1, 0, 1, 0, '[]', '{series}', '{{}}', {analysis})"
)
SERIES = (
    (1, 3, {"nonfinite_tokens": 2, "confident_disagreement_share": 1 / 3}),
    (1, 7, {"nonfinite_tokens": 0, "confident_disagreement_share": 5 / 7}),
    (1, 2**40, {"nonfinite_tokens": 1.0, "confident_disagreement_share": 0.0}),
    (2, 5, {"nonfinite_tokens": None, "kl_k1": 1.0}),
)


def test_steps_of_before_the_totals_are_in_them(address: DatabaseAddress) -> None:
    migrate.upgrade(address, "0005")
    database = Database(address)
    analysis = "'\\x00'" if isinstance(address, URL) else "x'00'"
    with database.write() as connection:
        for number in (1, 2, 3):
            connection.execute(text(RUN.format(number=number)))
        for step, (run, tokens, series) in enumerate(SERIES):
            values = {"run": run, "step": step, "tokens": tokens, "series": json.dumps(series)}
            statement = STEP.format(**values, analysis=analysis)
            connection.exec_driver_sql(statement)
    migrate.upgrade(address)
    with database.read() as connection:
        found = [RunRepository(connection).get(f"run-{number}") for number in (1, 2, 3)]
    database.dispose()
    assert [
        (run.compared_tokens, run.nonfinite_tokens, run.confident_disagreements)
        for run in found
        if run is not None
    ] == [(2**40 + 10, 3, 6), (5, 0, 0), (0, 0, 0)]


def test_steps_of_before_attempts_are_those_of_the_first(address: DatabaseAddress) -> None:
    migrate.upgrade(address, "0008")
    database = Database(address)
    analysis = "'\\x00'" if isinstance(address, URL) else "x'00'"
    with database.write() as connection:
        for number in (1, 2):
            connection.execute(text(RUN.format(number=number)))
        for step in (3, 5):
            values = {"run": 1, "step": step, "tokens": 7, "series": "{}"}
            connection.exec_driver_sql(STEP.format(**values, analysis=analysis))
        connection.exec_driver_sql(
            "UPDATE runs SET complete_steps = 2, last_step = 5, last_step_at = created_at "
            "WHERE number = 1"
        )
        connection.exec_driver_sql(
            """UPDATE steps SET verdict = '{"verdict": "bug_like", "excess": 9.5, "cause": "c", """
            """"confidence": 0.75}', crossed = '["kl_k3"]' WHERE step = 5"""
        )
        connection.exec_driver_sql(
            "INSERT INTO shards (run_number, step, shard, shards, content_sha256, received_at, "
            "tokens, size_bytes, format, file) VALUES (1, 6, 0, 2, '0', '2026-11-22 12:00:00', 1, "
            "1, 'json', 'f')"
        )
    migrate.upgrade(address)
    with database.read() as connection:
        runs, attempts = RunRepository(connection), AttemptRepository(connection)
        run, empty = runs.get("run-1"), runs.get("run-2")
        assert run is not None and empty is not None
        points = StepRepository(connection).points(run.number, 9)
        shards = ShardRepository(connection).of_step(run.number, 6)
        of_runs = [attempts.of_run(one.number) for one in (run, empty)]
    database.dispose()
    assert [(point.step, point.attempt, point.superseded_by) for point in points] == [
        *((3, 1, None), (5, 1, None)),
    ]
    assert [(shard.file, shard.attempt) for shard in shards] == [("f", 1)]
    for of_run in of_runs:
        assert [(one.attempt, one.id, one.resumed_from) for one in of_run] == [(1, None, None)]
        assert of_run[0].started_at == run.created_at
    assert (run.complete_steps, run.received_steps, run.attempt, run.refused_steps) == (2, 2, 1, 0)
    assert (run.verdict, run.excess, run.cause, run.confidence) == ("bug_like", 9.5, "c", 0.75)
    assert (run.crossed, empty.verdict, empty.received_steps) == (1, None, 0)


REVISIONS = [
    f"{number:04}" for number in range(1, len(list(migrate.MIGRATIONS.glob("versions/0*.py"))))
]
#: Enough for every reference to have something to refer to.
ROWS_OF_A_TABLE = 3


def filled(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Every table that is there, with rows in each column, and what was written: the tables are
    those of the revision, not of the code."""
    there = MetaData()
    there.reflect(connection)
    written: dict[str, list[dict[str, Any]]] = {}
    for table in there.sorted_tables:
        if table.name == "alembic_version":
            continue
        rows = [
            {column.name: example(column, number) for column in table.columns}
            for number in range(1, ROWS_OF_A_TABLE + 1)
        ]
        connection.execute(table.insert(), rows)
        written[table.name] = rows
    return written


def example(column: Column[Any], number: int) -> Any:
    """Rows of all tables are numbered alike, so that references by number or id hold."""
    kind = column.type
    if column.name == "id" and column.table.name == "attempts":
        return f"a_{number}"
    if column.name in ("id", "job_id", "report_id", "key_id"):
        of = {"job_id": "jobs", "report_id": "reports", "key_id": "api_keys"}
        return f"{of.get(column.name, column.table.name)}_{number}"
    if column.name == "verdict" and isinstance(kind, JSON):
        return {"verdict": "bug_like", "excess": 1.5, "cause": "c", "confidence": 0.5}
    if column.name == "crossed" and isinstance(kind, JSON):
        return ["kl_k3"]
    if column.name in EXAMPLES:
        return EXAMPLES[column.name]
    if isinstance(kind, DateTime) or "_at" in column.name:
        return datetime(2026, 11, 22, 12, 0, number)  # as every time in the database: UTC
    if isinstance(kind, JSON):
        return {"number": number}
    if isinstance(kind, LargeBinary):
        return bytes([number])
    if isinstance(kind, Float):
        return number / 4
    if isinstance(kind, Integer):
        return number
    return f"{column.name}_{number}"


#: What a migration reads, or a column holds of a few words.
EXAMPLES: dict[str, Any] = {
    "series": {"nonfinite_tokens": 1, "confident_disagreement_share": 0.5},
    "attempt": 1,
    "superseded_by": None,
    "state": "succeeded",
}


def sorted_rows(connection: Connection, table: str, names: list[str]) -> list[tuple[Any, ...]]:
    there = Table(table, MetaData(), autoload_with=connection)
    found = connection.execute(select(*(there.c[name] for name in names if name in there.c)))
    return sorted(tuple(row) for row in found)


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_released_revision_is_brought_to_head_with_its_rows(
    address: DatabaseAddress, revision: str
) -> None:
    migrate.upgrade(address, revision)
    database = Database(address)
    with database.write() as connection:
        written = filled(connection)
        before = {
            table: sorted_rows(connection, table, list(KEYS.get(table, ["number"])))
            for table in written
        }
    migrate.upgrade(address)
    with database.read() as connection:
        assert migrate.current_revision(connection) == migrate.newest_revision()
        for table in written:
            after = sorted_rows(connection, table, list(KEYS.get(table, ["number"])))
            assert after == before[table], table
    assert differences(database) == []
    database.dispose()


#: What stands for a row, where it is not its number alone.
KEYS = {
    "jobs": ("number", "id", "kind", "created_at", "finished_at"),
    "reports": ("number", "id", "job_id", "file", "size_bytes", "created_at"),
    "runs": ("number", "name", "model", "created_at", "activity"),
    "steps": ("number", "run_number", "step", "content_sha256", "tokens", "analysis"),
    "shards": ("number", "run_number", "step", "shard", "content_sha256"),
    "api_keys": ("number", "id", "name", "secret_sha256", "created_at"),
    "run_tags": ("run_number", "tag"),
    "leases": ("name", "owner"),
}


def test_the_newest_revision_can_be_taken_back_with_its_rows(address: DatabaseAddress) -> None:
    migrate.upgrade(address)
    database = Database(address)
    with database.write() as connection:
        job = JobRepository(connection).add("paired", "m", {})
    config = migrate.alembic_config()
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0013")
    migrate.upgrade(address)
    with database.read() as connection:
        assert JobRepository(connection).get(job.id) == job
    assert differences(database) == []
    database.dispose()


def test_a_file_of_a_newer_version_is_refused_untouched(database: Database, path: Path) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(migrate.MigrationError, match="9999"):
        migrate.upgrade(path)
    with database.read() as connection:
        assert migrate.current_revision(connection) == "9999"


def test_a_migration_that_fails_leaves_nothing(path: Path) -> None:
    """All steps are one transaction: here the second table is in the way."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE reports (number INTEGER)")
    with pytest.raises(migrate.MigrationError, match="cannot be migrated"):
        migrate.upgrade(path)
    with closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert tables == {"reports"}


def test_a_file_that_is_no_database_is_refused_untouched(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(migrate.MigrationError, match="cannot be migrated"):
        migrate.upgrade(path)
    assert path.read_bytes() == b"not a database" * 100


def test_revisions_are_one_line(path: Path) -> None:
    script = ScriptDirectory.from_config(migrate.alembic_config())
    revisions = [revision.revision for revision in script.walk_revisions()]
    assert revisions == [f"{number:04}" for number in range(len(revisions), 0, -1)]
