"""`driftscope keys create|list|rotate|revoke`, under a running service as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from driftscope_service.auth.key import parse_key
from driftscope_service.cli.keys import KeyCommandError, app
from driftscope_service.service import open_service

pytestmark = pytest.mark.usefixtures("clean_environment")


def keys(data_dir: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--data-dir", str(data_dir)])


def create(data_dir: Path, scope: str = "read", *more: str) -> str:
    done = keys(data_dir, "create", "--name", "trainer", "--scope", scope, *more)
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


def listed(data_dir: Path) -> list[dict[str, Any]]:
    done = keys(data_dir, "list", "--json")
    assert done.exit_code == 0, done.output
    found: list[dict[str, Any]] = json.loads(done.stdout)["keys"]
    return found


def test_a_key_is_printed_once_and_alone(tmp_path: Path) -> None:
    token = create(tmp_path, "ingest, read", "--expires-days", "30")
    text = parse_key(token)
    assert text is not None
    (row,) = listed(tmp_path)
    assert (row["id"], row["name"], row["state"]) == (text.id, "trainer", "active")
    assert row["scopes"] == ["ingest", "read"]
    assert row["expires_at"] > row["created_at"]
    for arguments in (["list"], ["list", "--json"]):
        output = keys(tmp_path, *arguments).output
        assert text.secret not in output and text.secret_sha256 not in output


def test_under_a_running_service(run_service: Any) -> None:
    with run_service(require_keys=True) as running:
        token = create(running.data_dir)
        headers = {"authorization": f"Bearer {token}"}
        assert running.client.get("/v1/jobs", headers=headers).status_code == 200
        key_id = listed(running.data_dir)[0]["id"]
        assert keys(running.data_dir, "revoke", key_id).exit_code == 0
        assert running.client.get("/v1/jobs", headers=headers).status_code == 401
        assert listed(running.data_dir)[0]["state"] == "revoked"


def test_the_first_key_comes_before_the_service(make_settings: Any) -> None:
    settings = make_settings(host="0.0.0.0")
    create(settings.data_dir)
    with open_service(settings):
        pass
    assert settings.data_dir.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "--name", "a", "--scope", "write"],
        ["create", "--name", "a", "--scope", ""],
        ["create", "--name", "a", "--scope", "read,,ingest"],
        ["create", "--name", " ", "--scope", "read"],
        ["create", "--name", "a\nb", "--scope", "read"],
        ["create", "--name", "a" * 101, "--scope", "read"],
        ["list"],
        ["revoke", "none"],
        ["rotate", "none"],
        ["rotate", "none", "--overlap", "1w"],
        ["rotate", "none", "--overlap", "367d"],
        ["create", "--name", "a", "--scope", "read", "--run-prefix", "team-a/"],
        ["create", "--name", "a", "--scope", "read", "--run-prefix", ""],
        ["create", "--name", "a", "--scope", "read,probe", "--run-prefix", "team-a-"],
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path: Path, arguments: list[str]) -> None:
    done = keys(tmp_path / "data", *arguments)
    assert isinstance(done.exception, KeyCommandError)
    assert done.exception.remedy
    assert not (tmp_path / "data").exists()


def test_an_unknown_identifier(tmp_path: Path) -> None:
    create(tmp_path)
    assert isinstance(keys(tmp_path, "revoke", "none").exception, KeyCommandError)


@pytest.mark.parametrize("days", ["0", "-1", "3651", "many"])
def test_days_out_of_range(tmp_path: Path, days: str) -> None:
    done = keys(tmp_path, "create", "--name", "a", "--scope", "read", "--expires-days", days)
    assert done.exit_code == 2


def test_limits_and_runs_of_a_key(tmp_path: Path) -> None:
    own = ["--run-prefix", "team-a-", "--requests-per-minute", "60", "--max-concurrent", "4"]
    create(tmp_path, "ingest,read", *own)
    (row,) = listed(tmp_path)
    assert row["run_prefix"] == "team-a-"
    assert (row["requests_per_minute"], row["max_concurrent"]) == (60, 4)
    assert "team-a-*" in keys(tmp_path, "list").stdout


def test_rotation_under_a_running_service(run_service: Any) -> None:
    with run_service(require_keys=True) as running:
        old = create(running.data_dir)
        key_id = listed(running.data_dir)[0]["id"]
        done = keys(running.data_dir, "rotate", key_id, "--overlap", "30m")
        assert done.exit_code == 0, done.output
        new = done.stdout.strip()
        for token in (old, new):
            headers = {"authorization": f"Bearer {token}"}
            assert running.client.get("/v1/jobs", headers=headers).status_code == 200
        first, second = listed(running.data_dir)
        assert first["replaced_by"] == second["id"] and first["state"] == "active"
        assert first["expires_at"] is not None and second["expires_at"] is None
        assert f"rotated into {second['id']}" in keys(running.data_dir, "list").stdout
        again = keys(running.data_dir, "rotate", key_id)
        assert isinstance(again.exception, KeyCommandError)
        assert second["id"] in again.exception.remedy


def test_without_overlap_the_old_key_ends_and_names_its_successor(run_service: Any) -> None:
    with run_service(require_keys=True) as running:
        old = create(running.data_dir)
        key_id = listed(running.data_dir)[0]["id"]
        assert keys(running.data_dir, "rotate", key_id, "--overlap", "0h").exit_code == 0
        answer = running.client.get("/v1/jobs", headers={"authorization": f"Bearer {old}"})
        successor = listed(running.data_dir)[1]["id"]
        assert answer.status_code == 401 and successor in answer.json()["detail"]


def test_a_key_that_has_ended_is_not_rotated(tmp_path: Path) -> None:
    create(tmp_path)
    key_id = listed(tmp_path)[0]["id"]
    keys(tmp_path, "revoke", key_id)
    done = keys(tmp_path, "rotate", key_id)
    assert isinstance(done.exception, KeyCommandError) and "revoked" in done.exception.message


@pytest.mark.parametrize("arguments", [[], ["create"], ["list"], ["rotate"], ["revoke"]])
def test_help(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0
