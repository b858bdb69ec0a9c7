"""`driftscope floor` as a user runs it: refusals, one real run, and what it leaves."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("--model", "tiny-random-llama", "--prompts", "4", "--max-tokens", "8", "--threads", "1")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--model"),
        (["--model", "tiny-random-lama"], "tiny-random-llama"),
        (["--model", "tiny-random-llama", "--dtypes", "bf17"], "bf17"),
        (["--model", "tiny-random-llama", "--dtypes", "bf16,bf16"], "twice"),
        (["--model", "tiny-random-llama", "--prompts", "1"], "greater than or equal to 2"),
        (["--model", "tiny-random-llama", "--fp16-prompts", "17"], "there are 16 prompts"),
        (["--import", "none.json"], "none.json holds no exported floors"),
    ],
)
def test_what_is_refused(driftscope: Run, tmp_path: Path, arguments: list[str], told: str) -> None:
    done = driftscope("floor", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert told in done.stderr and "What to do:" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_nothing_stored_says_how_to_measure(driftscope: Run) -> None:
    done = driftscope("floor", "--list")
    assert done.returncode == 0 and "driftscope floor --model" in done.stdout
    assert json.loads(driftscope("floor", "--list", "--json").stdout) == {"floors": []}


@pytest.mark.slow
def test_a_real_floor_is_kept_listed_exported_and_imported(driftscope: Run, tmp_path: Path) -> None:
    done = driftscope("floor", *SMALL, "--dtypes", "bf16,fp32", "--export", "floors.json")
    assert done.returncode == 0, done.stderr
    assert "Rounding alone moves the logits of tiny-random-llama" in done.stdout
    assert "decoding with a KV cache" in done.stderr
    stored = json.loads(driftscope("floor", "--list", "--json").stdout)
    assert stored == json.loads((tmp_path / "floors.json").read_text())
    assert len(stored["floors"]) == 4
    assert len(list((tmp_path / "driftscope-data" / "floors").iterdir())) == 4
    taken = driftscope("floor", "--import", "floors.json", "--data-dir", "elsewhere", "--json")
    assert json.loads(taken.stdout) == stored
    listed = driftscope("floor", "--list", "--model", "tiny-random-llama").stdout
    assert "tiny-random-llama on " in listed and listed.count("bf16") == 4
    none = driftscope("floor", "--list", "--json", "--model", "another")
    assert json.loads(none.stdout) == {"floors": []}
