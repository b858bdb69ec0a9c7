"""`driftscope nightly` as a user runs it: lists, nights, exit codes and refusals."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
CONFIG = """
name = "one"
budget_minutes = 5
[[kernels]]
names = ["torch/mean_strided/eager"]
dtypes = ["fp32"]
expected = "REFUTED"
"""


def test_the_shipped_file_is_listed(driftscope: Run) -> None:
    done = driftscope("nightly", "--list")
    assert done.returncode == 0, done.stderr
    assert "engine/" in done.stdout and "kernel/driftscope/" in done.stdout
    items = json.loads(driftscope("nightly", "--list", "--json").stdout)["items"]
    assert {item["kind"] for item in items} == {"kernel", "engine"}
    assert len(items) == len(done.stdout.splitlines())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read nightly.toml"),
        ("name = ", "not TOML"),
        (CONFIG.replace("REFUTED", "WRONG"), "unknown verdict of a kernel WRONG"),
    ],
)
def test_a_file_that_is_none_exits_2(
    driftscope: Run, tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "nightly.toml").write_text(text, encoding="utf-8")
    done = driftscope("nightly", "--config", "nightly.toml", "--history", "history")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "history").exists()


def test_a_history_that_cannot_be_written_exits_2(driftscope: Run, tmp_path: Path) -> None:
    (tmp_path / "nightly.toml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "file").touch()
    done = driftscope("nightly", "--config", "nightly.toml", "--history", "file")
    assert done.returncode == 2
    assert "File exists: 'file'" in done.stderr and "history" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_night_leaves_its_files_and_an_altered_expectation_exits_1(
    driftscope: Run, tmp_path: Path
) -> None:
    config = tmp_path / "nightly.toml"
    config.write_text(CONFIG, encoding="utf-8")
    arguments = ("nightly", "--config", str(config), "--history", "history")
    done = driftscope(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [(item["id"], item["verdict"]) for item in result["items"]] == [
        ("kernel/torch/mean_strided/eager/fp32/t1", "REFUTED")
    ]
    (folder,) = (path for path in (tmp_path / "history").iterdir() if path.is_dir())
    assert {path.name for path in folder.iterdir()} == {
        *("state.json", "items.jsonl", "report.json", "report.xml", "report.html")
    }
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == result
    config.write_text(CONFIG.replace("REFUTED", "PROVED"), encoding="utf-8")
    done = driftscope(*arguments)
    assert done.returncode == 1, done.stderr
    assert "REFUTED, expected PROVED; the same as before; REFUTED was expected then" in done.stdout
    assert "--replay" in done.stdout


@pytest.mark.slow
def test_no_time_exits_2(driftscope: Run, tmp_path: Path) -> None:
    (tmp_path / "nightly.toml").write_text(CONFIG, encoding="utf-8")
    done = driftscope("nightly", "--config", "nightly.toml", "--history", "h", "--budget", "0")
    assert done.returncode == 2, done.stderr
    assert "time budget" in done.stdout
