"""Settings: defaults, environment, command line, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from driftscope_service.cli.main import build_app
from driftscope_service.settings import (
    OTHER_VARIABLES,
    PREFIX,
    Settings,
    SettingsError,
    is_loopback,
    load_settings,
)
from driftscope_service.settings_page import settings_page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "settings.md"
#: Unknown on purpose in tests; a name that only tests' own children read; a prefix, not a name.
NOT_VARIABLES = {
    "DRIFTSCOPE_" + name
    for name in ("MAX_QUEUE", "MAX_TOYS", "PROT", "INTERPRETED_OUTCOMES", "VLLM")
}

pytestmark = pytest.mark.usefixtures("clean_environment")


def refusal(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    for name, value in variables.items():
        monkeypatch.setenv(f"DRIFTSCOPE_{name}", value)
    with pytest.raises(SettingsError) as error:
        load_settings()
    return str(error.value)


@pytest.mark.parametrize(
    ("devices", "part"),
    [
        (["0"], "1 named for 2 probes"),
        (["0", "0"], "each device once"),
        (["0", "a b"], "each device once"),
        (["0", ""], "each device once"),
    ],
)
def test_devices_are_enough_and_well_named(
    monkeypatch: pytest.MonkeyPatch, devices: list[str], part: str
) -> None:
    given = {"MAX_CONCURRENT_PROBES": "2", "DEVICES": json.dumps(devices)}
    assert part in refusal(monkeypatch, **given)
    monkeypatch.setenv("DRIFTSCOPE_DEVICES", '["0", "GPU-8932f937-d72c"]')
    assert load_settings().devices == ("0", "GPU-8932f937-d72c")


def test_the_command_line_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTSCOPE_PORT", "9000")
    monkeypatch.setenv("DRIFTSCOPE_MAX_QUEUED_JOBS", "3")
    settings = load_settings(port=9001, host=None)
    assert (settings.port, settings.max_queued_jobs, settings.host) == (9001, 3, "127.0.0.1")


def test_every_setting_is_described() -> None:
    undescribed = [n for n, field in Settings.model_fields.items() if not field.description]
    assert undescribed == []


def names_in_the_tree() -> set[str]:
    """Every variable that any file of the repository names, C++ macros aside."""
    done = subprocess.run(
        ["git", "grep", "-hIoE", r"\bDRIFTSCOPE_[A-Z_]+[A-Z]\b", "--", ":!*.h", ":!*.cpp"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split()) - NOT_VARIABLES


def test_every_variable_named_in_the_tree_is_accepted() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | set(OTHER_VARIABLES)
    assert names_in_the_tree() <= known


def test_commands_start_with_the_variables_of_other_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in OTHER_VARIABLES:
        monkeypatch.setenv(name, "anything")
    for command in (["db", "upgrade"], ["keys", "list"]):
        result = CliRunner().invoke(build_app(), [*command, "--data-dir", str(tmp_path)])
        assert result.exit_code == 0, result.output


def test_the_docs_name_every_variable_and_its_meaning() -> None:
    assert DOCS.read_text() == settings_page()


def test_an_unknown_variable_names_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, MAX_QUEUE="3")
    assert "DRIFTSCOPE_MAX_QUEUE." in message
    assert "DRIFTSCOPE_MAX_QUEUED_JOBS" in message


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("PORT", "many", "port"),
        ("PORT", "65536", "port"),
        ("MAX_QUEUED_JOBS", "0", "max_queued_jobs"),
        ("HOST", "example.org", "not an IP address"),
        ("ALLOWED_HOSTS", '["*.example.org"]', "not a host name"),
        ("ALLOWED_HOSTS", '["example.org:8321"]', "not a host name"),
        ("ALLOWED_HOSTS", '["Example.org"]', "not a host name"),
        ("ALLOWED_HOSTS", '[""]', "not a host name"),
        ("MODELS", "not json", "models"),
        ("MODELS", '{"a/b": "/"}', "the name 'a/b' is not accepted"),
        ("MODELS", '{"": "/"}', "is not accepted"),
        ("MODELS", '{"gone": "/nowhere/at/all"}', "is not a folder"),
        ("MODELS", '{"smollm2-135m": "/"}', "taken by the catalogue"),
        ("PROBE_PYTHON", "/nowhere/python", "not an executable"),
        ("ENGINE_ENDPOINTS", '{"a": {"url": "file:///etc", "model": "m"}}', "not an http"),
        ("ENGINE_ENDPOINTS", '{"a": {"url": "http://u:p@h/v1", "model": "m"}}', "no user"),
        ("ENGINE_ENDPOINTS", '{"a": {"url": "http://h", "model": "m", "key": "s"}}', "key"),
    ],
)
def test_a_wrong_value_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, part: str
) -> None:
    assert part in refusal(monkeypatch, **{name: value})


def test_a_password_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    value = json.dumps({"a": {"url": "http://user:hunter2@host", "model": "m"}})
    assert "hunter2" not in refusal(monkeypatch, ENGINE_ENDPOINTS=value)


def test_models_come_from_the_environment_as_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DRIFTSCOPE_MODELS", json.dumps({"mine": str(tmp_path)}))
    settings = load_settings()
    assert settings.models == {"mine": tmp_path.resolve()}
    assert settings.model_names[-1] == "mine"
    assert "smollm2-135m" in settings.model_names


def test_a_given_interpreter_is_accepted() -> None:
    assert load_settings(probe_python=sys.executable).probe_python == Path(sys.executable)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("host", "require_keys", "required"),
    [
        ("127.0.0.1", False, False),
        ("localhost", True, True),
        ("0.0.0.0", False, True),
        ("10.0.0.1", False, True),
    ],
)
def test_keys_are_required_beyond_loopback(
    make_settings: Any, host: str, require_keys: bool, required: bool
) -> None:
    settings = make_settings(host=host, require_keys=require_keys, allowed_hosts=["a.example"])
    assert settings.keys_required is required
    assert settings.allowed_hosts == ("a.example",)


def test_settings_cannot_be_changed(make_settings: Any) -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_settings().port = 1
