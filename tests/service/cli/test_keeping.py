"""Work of the command line reaches the pages: the default folder, another, a service with a key;
and what cannot be stored is not lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from driftscope_service.auth.key import Scope, new_key
from driftscope_service.auth.store import KeyRepository
from driftscope_service.cli.main import build_app
from driftscope_service.demo import load
from driftscope_service.experiments import keeping
from driftscope_service.experiments.registry import EXPERIMENTS, load_kinds
from driftscope_service.experiments.store import ReportRepository, latest_reports
from driftscope_service.service import open_service, shared_database
from driftscope_service.settings import Settings
from driftscope_service.store.database import Database

ROOT = Path(__file__).parents[3]
TOY = ROOT / "tests" / "service" / "experiments" / "toy"
WITH_TOY = (*EXPERIMENTS, "toy_experiment")
COMMAND = "from driftscope_service.cli.main import main; main()"
Toy = Callable[..., Result]


@pytest.fixture
def folder(
    clean_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(TOY)
    yield tmp_path


@pytest.fixture
def toy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """`driftscope probe toy`, a kind that no file of ours knows."""

    def run(*arguments: str) -> Result:
        words = ["probe", "toy", *arguments]
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/driftscope", *words])
        return CliRunner().invoke(build_app(WITH_TOY), words)

    return run


def stored(data_dir: Path) -> list[Any]:
    database = Database(data_dir / "driftscope.db")
    with database.read() as connection:
        found = latest_reports(connection, None, 100)
    database.dispose()
    return found


def test_a_report_is_kept_where_serve_looks_and_named_on_stderr(toy: Toy, folder: Path) -> None:
    done = toy("--size", "4")
    assert done.exit_code == 0, done.output
    assert done.stdout == "[0, 1, 2, 3]\n"
    (report,) = stored(folder / "driftscope-data")
    assert f"shows it at /probes/{report.id}" in done.stderr
    assert report.origin["command"] == "driftscope probe toy --size 4"
    assert report.origin["host"]
    with open_service(Settings(), experiments=WITH_TOY) as service:
        with service.database.read() as connection:
            found = ReportRepository(connection).get(report.id)
        assert found is not None and service.report_files.content(found) is not None


def test_the_folder_is_another_one_where_that_is_said(toy: Toy, folder: Path) -> None:
    done = toy("--data-dir", "else where")
    assert "driftscope serve --data-dir 'else where'" in done.stderr
    assert len(stored(folder / "else where")) == 1
    assert not (folder / "driftscope-data").exists()


def test_nothing_is_kept_where_that_is_said(toy: Toy, folder: Path) -> None:
    done = toy("--no-store")
    assert done.exit_code == 0 and done.stderr == ""
    assert list(folder.iterdir()) == []


def test_what_cannot_be_stored_is_not_lost_and_is_no_failure(toy: Toy, folder: Path) -> None:
    (folder / "driftscope-data").write_text("a file")
    done = toy("--size", "2")
    assert done.exit_code == 0 and done.stdout == "[0, 1]\n"
    assert "not stored" in done.stderr and "What to do:" in done.stderr
    (left,) = (folder / "driftscope-reports").iterdir()
    assert json.loads(left.read_text())["sizes"] == [0, 1]
    assert f"driftscope reports add {left.relative_to(folder)}" in done.stderr
    (folder / "driftscope-data").unlink()
    added = CliRunner().invoke(build_app(WITH_TOY), ["reports", "add", str(left)])
    assert added.exit_code == 0, added.output
    assert len(stored(folder / "driftscope-data")) == 1


def test_a_service_that_is_down_is_said_with_the_remedy(toy: Toy) -> None:
    done = toy("--url", "http://127.0.0.1:9")
    assert done.exit_code == 0
    assert "cannot be reached" in done.stderr and "reports add" in done.stderr


def test_a_setting_that_is_wrong_is_said(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    misspelt = "DRIFTSCOPE_MAX_" + "TREADS"  # whole, it would count as a setting of ours
    monkeypatch.setenv(misspelt, "1")
    done = toy()
    assert done.exit_code == 0 and misspelt in done.stderr


def test_another_schema_under_a_running_service_is_refused_in_words(
    toy: Toy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftscope_service.service.PREPARED_WITHIN_S", 0.0)
    with open_service(Settings(), experiments=WITH_TOY) as service:
        with service.database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '0008'"))
        done = toy()
    assert done.exit_code == 0
    assert "another schema" in done.stderr and "--url" in done.stderr
    assert stored(folder / "driftscope-data") == []


def test_a_newer_schema_is_left_alone(toy: Toy, folder: Path) -> None:
    toy()
    database = Database(folder / "driftscope-data" / "driftscope.db")
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.dispose()
    done = toy("--size", "7")
    assert done.exit_code == 0 and "newer driftscope" in done.stderr
    assert len(stored(folder / "driftscope-data")) == 1


def test_with_a_key_it_reaches_a_running_service(
    run_service: Any, serving: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = load_kinds()["floor"]
    file = folder / "floor.json"
    file.write_text(json.dumps(load.recorded_report(kind, "floor")))
    with run_service(require_keys=True) as running, serving(running) as url:
        words = ["reports", "add", str(file), "--url", url]
        none = CliRunner().invoke(build_app(), words)
        assert "API key is needed" in str(none.exception)
        key = new_key()
        with running.service.database.write() as connection:
            KeyRepository(connection).add(key, name="ci", scopes=[Scope.INGEST], expires_at=None)
        monkeypatch.setenv("DRIFTSCOPE_API_KEY", key.token)
        done = CliRunner().invoke(build_app(), words)
        assert done.exit_code == 0, done.output
        assert f"report: {url}/probes/report_" in done.output
        with running.service.database.read() as connection:
            (report,) = latest_reports(connection, "floor", 10)
    assert report.origin is not None and report.origin["host"]


def test_reports_and_jobs_are_listed_and_deleted(running: Any, url: str) -> None:
    app, runner = build_app(), CliRunner()
    report = running.finished_report()
    listed = runner.invoke(app, ["reports", "list", "--url", url])
    assert listed.stdout.split("\t")[:2] == [report, "paired"]
    other = runner.invoke(app, ["reports", "list", "--kind", "floor", "--json", "--url", url])
    assert json.loads(other.stdout)["reports"] == []
    words = ["reports", "delete", report, "--url", url]
    assert runner.invoke(app, words, input="n\n").exit_code != 0
    assert running.client.get(f"/v1/reports/{report}").status_code == 200
    done = runner.invoke(app, [*words, "--yes"])
    assert done.exit_code == 0 and "is deleted" in done.stdout
    assert running.client.get(f"/v1/reports/{report}").status_code == 404
    failed = running.start("refuse")
    running.wait(failed)
    done = runner.invoke(app, ["jobs", "delete", failed, "--yes", "--url", url])
    assert done.exit_code == 0, done.output
    assert running.client.get(f"/v1/jobs/{failed}").status_code == 404


@pytest.mark.slow
def test_many_commands_at_once_on_a_new_folder_beside_a_service(folder: Path) -> None:
    """Each in a process of its own; the first ones also make the database."""
    kinds = load_kinds()
    names = [(kind, kind.recordings[0]) for kind in kinds.values()][:4]
    for kind, name in names:
        (folder / f"{name}.json").write_text(json.dumps(load.recorded_report(kind, name)))
    roots = os.pathsep.join(str(ROOT / root) for root in ("service", "probes", "kernels"))

    def start(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, "reports", "add", f"{name}.json"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": roots},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    first = [start(name) for _, name in names[:2]]
    ended = [(one.communicate(timeout=120), one.returncode) for one in first]
    assert [code for _, code in ended] == [0, 0], ended
    with open_service(Settings()) as service:
        rest = [start(name) for _, name in names]
        with service.database.write() as connection:
            connection.execute(text("SELECT 1"))
        ended = [(one.communicate(timeout=120), one.returncode) for one in rest]
    assert {code for _, code in ended} == {0}, ended
    assert len(stored(folder / "driftscope-data")) == len(names)


def test_an_address_is_recorded_without_its_password() -> None:
    made = keeping.origin(["/bin/driftscope", "nightly", "--url", "http://me:pass@host/x"])
    assert "pass" not in made.command and "host/x" in made.command
    long = keeping.origin(["driftscope", "x" * 5000])
    assert len(long.command) == keeping.MOST_COMMAND


def test_a_shared_database_waits_for_whoever_prepares_it(
    clean_environment: None, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    with shared_database(settings) as database:
        with database.read() as connection:
            assert latest_reports(connection, None, 1) == []
