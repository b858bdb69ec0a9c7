"""`driftscope probe determinism` as a user runs it: refusals, and one real run."""

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
TINY = ("probe", "determinism", "--model", "tiny-random-llama")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--axes", "colour"], "run_to_run"),
        (["--axes", ""], "axes"),
        (["--axes", "position", "--values", "0"], "values"),
        (["--values", "1,2"], "name that axis alone"),
        (["--axes", "position", "--values", "0,99"], "99 is not valid for 'places moved'"),
        (["--batch-sizes", "1,none"], "none"),
        (["--batch-sizes", "1"], "at least 2"),
        (["--engine-dtypes", "bf17"], "bf17"),
        (["--kernels", "invariant", "--engine", "hf"], "for engine vllm"),
        (["--engine", "vllm-server"], "server_url"),
        (["--engine", "sglang"], "vllm-server"),
        (["--model", "tiny-random-lama"], "tiny-random-llama"),
    ],
)
def test_what_is_refused(driftscope: Run, tmp_path: Path, arguments: list[str], told: str) -> None:
    done = driftscope(*TINY, *arguments, "--out", "report")
    assert done.returncode == 2
    assert done.stdout == ""
    assert told in done.stderr and "What to do:" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_kept(driftscope: Run, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "mine.txt").write_text("mine")
    done = driftscope(*TINY, "--axes", "position", "--out", "report")
    assert done.returncode == 2 and "exists already" in done.stderr
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_a_real_run_and_its_replay(driftscope: Run, tmp_path: Path) -> None:
    """Of the tiny model in fp32 with two threads a long row depends on its batch."""
    pytest.importorskip("vllm")
    chosen = ("--engine-dtypes", "fp32", "--threads", "2", "--axes", "batch_size")
    sizes = ("--batch-sizes", "1,8", "--prompt-tokens", "24,320")
    done = driftscope(*TINY, *chosen, *sizes, "--json", "--out", "report")
    assert done.returncode == 1, done.stderr
    assert "batch_size" in done.stderr
    report = json.loads(done.stdout)
    assert {"config.json", "request"} <= {one["name"] for one in report["lint"]["read"]}
    assert report == json.loads((tmp_path / "report" / "report.json").read_text())
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"report.json", "logs"}
    (axis,) = report["axes"]
    assert axis["verdict"] == "differs"
    again = driftscope(*shlex.split(axis["replay"])[1:], "--json")
    (replayed,) = json.loads(again.stdout)["axes"]
    assert replayed["verdict"] == "differs"
    assert replayed["onset"]["differs_from"] == axis["onset"]["differs_from"]
