"""`driftscope backup`, `driftscope restore` and `driftscope db adopt`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from driftscope_probes.errors import ProbeError
from driftscope_service.auth.audit import AuditLog
from driftscope_service.cli.main import build_app
from driftscope_service.jobs.claims import ClaimRepository
from driftscope_service.jobs.job import AttemptOutcome, JobState
from driftscope_service.jobs.store import JobRepository
from driftscope_service.store.database import Database
from driftscope_service.store.instances import InstanceRepository

runner = CliRunner()
pytestmark = pytest.mark.usefixtures("clean_environment")


def run(*arguments: str | Path) -> Any:
    return runner.invoke(build_app(), [str(argument) for argument in arguments])


def failed(*arguments: str | Path) -> str:
    answer = run(*arguments)
    assert isinstance(answer.exception, ProbeError), answer.output
    return str(answer.exception)


@pytest.fixture
def data_dir(run_service: Any) -> Path:
    """Of a service that ran and made one report."""
    with run_service() as running:
        running.finished_report()
    folder: Path = running.data_dir
    return folder


def actions(data_dir: Path) -> list[str]:
    database = Database(data_dir / "driftscope.db")
    with database.read() as connection:
        found = [entry.action for entry in AuditLog(connection).page(10)]
    database.dispose()
    return found


def test_a_backup_is_made_and_restored(data_dir: Path, tmp_path: Path) -> None:
    made = run("backup", tmp_path / "backup", "--data-dir", data_dir, "--json")
    assert made.exit_code == 0, made.output
    said = json.loads(made.stdout)
    assert said["missing"] == [] and said["files"] >= 1
    assert "backup.made" in actions(data_dir)
    other = tmp_path / "other"
    done = run("restore", tmp_path / "backup", "--data-dir", other)
    assert done.exit_code == 0, done.output
    assert actions(other)[0] == "backup.restored"
    reports = [path.relative_to(data_dir) for path in data_dir.glob("reports/*/*.json")]
    assert reports and all((other / path).read_bytes() for path in reports)
    assert "has rows in" in failed("restore", tmp_path / "backup", "--data-dir", other)
    assert "is not empty" in failed("backup", tmp_path / "backup", "--data-dir", data_dir)


def test_a_copy_leaves_the_probes_of_its_original_alone(
    run_service: Any, processes_of: Any, eventually: Any, tmp_path: Path
) -> None:
    """Both are on one machine, as for a restore that is tried; a probe runs when it is made."""
    with run_service() as original:
        job_id = original.start("sleep")
        eventually(lambda: processes_of(job_id))
        made = run("backup", tmp_path / "backup", "--data-dir", original.data_dir)
        assert made.exit_code == 0, made.output
        copy = tmp_path / "copy"
        done = run("restore", tmp_path / "backup", "--data-dir", copy)
        assert done.exit_code == 0, done.output
        database = Database(copy / "driftscope.db")
        with database.read() as connection:
            assert ClaimRepository(connection).held() == []
            assert InstanceRepository(connection).alive() == []
            job = JobRepository(connection).get(job_id)
        database.dispose()
        assert job is not None and job.state is JobState.QUEUED
        (attempt,) = job.attempts
        assert attempt.outcome == AttemptOutcome.LOST and attempt.reason is not None
        assert "restored from a backup" in attempt.reason.message
        assert original.job(job_id)["state"] == "running" and processes_of(job_id)


def test_a_missing_file_is_a_finding(data_dir: Path, tmp_path: Path) -> None:
    (report,) = data_dir.glob("reports/*/report.json")
    report.unlink()
    made = run("backup", tmp_path / "backup", "--data-dir", data_dir)
    assert made.exit_code == 1
    assert report.parent.name in made.output


def test_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    said = failed("backup", tmp_path / "backup", "--data-dir", tmp_path / "none")
    assert "there is no database" in said


def test_a_storage_is_adopted_by_its_numbers(data_dir: Path, tmp_path: Path) -> None:
    (report,) = data_dir.glob("reports/*/report.json")
    report.rename(report.parent.with_name("report_01JAAAAAAAAAAAAAAAAAAAAAAA"))
    unknown = data_dir / "steps" / "01JAAAAAAAAAAAAAAAAAAAAAAA.raw"
    unknown.parent.mkdir(exist_ok=True)
    unknown.write_bytes(b"raw")
    said = failed("db", "adopt", "--data-dir", data_dir)
    assert "1 are missing" in said and "--missing 1 --unknown 1" in said
    before = (data_dir / "storage-id.json").read_text()
    numbers = ("--missing", "1", "--unknown", "1")
    done = run("db", "adopt", *numbers, "--data-dir", data_dir)
    assert done.exit_code == 0, done.output
    assert (data_dir / "storage-id.json").read_text() != before
    assert actions(data_dir)[0] == "storage.adopted"
