"""What every command has: help under -h, a version, completion, one rule for exit codes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from driftscope_probes.errors import ProbeError
from driftscope_service.cli import main as entry


def paths(command: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield before
    for name, below in getattr(command, "commands", {}).items():
        yield from paths(below, (*before, name))


EVERY = sorted(paths(typer.main.get_command(entry.build_app())))


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_command_has_short_help(path: tuple[str, ...]) -> None:
    told = CliRunner().invoke(entry.build_app(), [*path, "-h"])
    assert told.exit_code == 0
    assert "Usage: " in told.stdout
    assert told.stdout == CliRunner().invoke(entry.build_app(), [*path, "--help"]).stdout


@pytest.mark.parametrize("path", [path for path in EVERY if path], ids=" ".join)
def test_a_command_line_finds_its_command_among_the_few_it_loads(path: tuple[str, ...]) -> None:
    told = CliRunner().invoke(entry.app_of(path), [*path, "-h"])
    whole = CliRunner().invoke(entry.build_app(), [*path, "-h"])
    assert (told.exit_code, told.stdout) == (0, whole.stdout)


def test_a_command_does_not_wait_for_the_others() -> None:
    loaded = (
        "import sys; from driftscope_service.cli.main import app_of; app_of(['backup']); "
        "print([name for name in sys.modules if 'drill' in name or 'lint' in name])"
    )
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_every_command_is_in_the_list() -> None:
    assert {("jobs", "list"), ("runs", "list"), ("probe", "paired"), ("serve",)} <= set(EVERY)


def test_the_version_is_that_of_the_package() -> None:
    told = CliRunner().invoke(entry.build_app(), ["--version"])
    assert (told.exit_code, told.stdout) == (0, f"driftscope {version('driftscope')}\n")


def test_the_shell_completes_commands(driftscope: Any) -> None:
    asked = {"_DRIFTSCOPE_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    done = driftscope(**asked, COMP_WORDS="driftscope ni")
    assert done.stdout.split() == ["nightly"], done.stderr
    script = driftscope("--show-completion", "bash")
    assert "_DRIFTSCOPE_COMPLETE=complete_bash" in script.stdout, script.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("jobs", "list", "--no-such-option"),
        ("jobs", "list", "--limit", "0"),
        ("jobs", "list", "--url", "http://127.0.0.1:9"),
        ("analyze", "no-such-file.json"),
        ("keys", "list"),
    ],
    ids=" ".join,
)
def test_wrong_usage_and_what_cannot_be_carried_out_exit_with_2(
    driftscope: Any, arguments: tuple[str, ...]
) -> None:
    done = driftscope(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and done.stderr


@pytest.mark.parametrize("fault", [ProbeError("broken.", remedy="mend it."), ZeroDivisionError()])
def test_a_bug_is_no_finding(
    fault: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> typer.Typer:
        raise fault

    monkeypatch.setattr(entry, "build_app", broken)
    with pytest.raises(SystemExit) as left:
        entry.main()
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert "What to do:" in told
    assert ("Traceback" in told) == isinstance(fault, ZeroDivisionError)
