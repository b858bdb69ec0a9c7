"""`driftscope audit`: what the commands on keys and a running service have left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from driftscope_service.auth.key import parse_key
from driftscope_service.cli.keys import KeyCommandError
from driftscope_service.cli.main import build_app

pytestmark = pytest.mark.usefixtures("clean_environment")


def driftscope(data_dir: Path, *arguments: str) -> Result:
    return CliRunner().invoke(build_app(), [*arguments, "--data-dir", str(data_dir)])


def test_keys_leave_their_entries(tmp_path: Path) -> None:
    made = driftscope(tmp_path, "keys", "create", "--name", "a", "--scope", "read")
    first = parse_key(made.stdout.strip())
    assert first is not None
    second = parse_key(driftscope(tmp_path, "keys", "rotate", first.id).stdout.strip())
    assert second is not None
    for _ in range(2):  # a second revocation changes nothing
        assert driftscope(tmp_path, "keys", "revoke", first.id).exit_code == 0
    done = driftscope(tmp_path, "audit", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["entries"]
    assert [(one["action"], one["target"]) for one in found] == [
        ("key.revoked", f"key {first.id}"),
        ("key.rotated", f"key {first.id}"),
        ("key.created", f"key {first.id}"),
    ]
    assert found[1]["detail"]["into"] == second.id
    assert {one["actor"] for one in found} == {"command_line"}
    shown = driftscope(tmp_path, "audit", "--last", "1").stdout
    assert "key.revoked" in shown and "key.created" not in shown
    assert first.secret not in done.stdout + shown


def test_beside_a_running_service(running: Any) -> None:
    running.client.put("/v1/runs/r", json={})
    running.client.delete("/v1/runs/r")
    found = json.loads(driftscope(running.data_dir, "audit", "--json").stdout)["entries"]
    assert [(one["actor"], one["target"]) for one in found] == [("anyone", "run r")]


def test_a_folder_without_a_database(tmp_path: Path) -> None:
    assert isinstance(driftscope(tmp_path, "audit").exception, KeyCommandError)
