"""`driftscope kernels …` as a user runs it: lists, verdicts, replays, exit codes and refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from driftscope_probes.kernels.report import KernelsCheck, KernelVerdict, Planted
from driftscope_service.experiments.kernels.command import is_finding

Run = Callable[..., subprocess.CompletedProcess[str]]
SOURCES = Path(__file__).parents[3]
COMMAND = "from driftscope_service.cli.main import main; main()"


@pytest.fixture
def kernels(tmp_path: Path) -> Run:
    """The command from these sources, in an empty folder."""
    roots = os.pathsep.join(str(SOURCES / root) for root in ("service", "probes", "kernels"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", COMMAND, "kernels", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": roots, "COLUMNS": "100"},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def test_list_names_ours_and_torchs(kernels: Run) -> None:
    done = kernels("list", "--op", "linear", "--json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)["kernels"]
    assert {"driftscope", "torch"} <= {kernel["target"] for kernel in listed}
    assert {kernel["op"] for kernel in listed} == {"linear"}


@pytest.mark.slow
def test_check_shows_verdict_bits_and_a_replay_that_replays(kernels: Run) -> None:
    arguments = "check --target torch --op mean_strided --dtype fp32 --threads 1 --quick".split()
    done = kernels(*arguments)
    assert done.returncode == 1, done.stderr
    assert "REFUTED" in done.stdout
    assert "Planted faults caught:" in done.stdout
    assert "ULP" in done.stdout
    line = next(line for line in done.stdout.splitlines() if "--replay" in line)
    again = kernels("check", "--replay", line.split("'")[1])
    assert again.returncode == 1, again.stderr
    assert "reproduced" in again.stdout
    # The same bits as in the report, from another process.
    bits = [word for word in again.stdout.split() if word.startswith("0x")]
    assert len(bits) == 2
    assert all(word in done.stdout for word in bits)


@pytest.mark.slow
def test_bench_prints_ratios_and_memory(kernels: Run) -> None:
    arguments = "bench --groups token_logprob --dtype fp32 --rounds 1".split()
    done = kernels(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) == {"rows", "memory", "environment"}
    named = {"op", "dtype", "k", "n", "m", "ours_s", "torch_s", "speed_ratio"}
    assert result["rows"] and all(named <= set(row) for row in result["rows"])
    assert {row["dtype"] for row in result["rows"]} == {"fp32"}
    table = kernels(*arguments)
    assert table.returncode == 0, table.stderr
    assert "x torch" in table.stdout and "token_logprob" in table.stdout
    if sys.platform == "linux":
        assert result["memory"][0]["ratio"] > 1
        assert "times less" in table.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "--target", "acme"), "unknown target acme"),
        (("check", "--op", "convolution"), "unknown op convolution"),
        (("check", "--dtype", "fp8"), "unknown dtype fp8"),
        (("check", "--threads", "0"), "whole numbers from 1"),
        (("check", "--markdown", "nowhere/table.md"), "there is no folder"),
        (("check", "--target", "vllm", "--op", "softmax"), "no kernel of vllm"),
        (("check", "--replay", "{"), "not JSON"),
        (("bench", "--groups", "attention"), "unknown group attention"),
        (("bench", "--dtype", "fp8"), "unknown dtype fp8"),
        (("bench", "--threads", "0"), "--threads"),
        (("bench", "--rounds", "0"), "--rounds"),
        (("check", "--replay", "[]"), "not a JSON object"),
        (("check", "--replay", "{}"), "misstates"),
        (("check", "--replay", "x" * 5000), "5,000 characters"),
    ],
)
def test_what_cannot_be_run_exits_2_or_says_why(
    kernels: Run, arguments: tuple[str, ...], message: str
) -> None:
    done = kernels(*arguments)
    assert done.returncode == 2
    assert message in done.stderr.replace("│", "")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("target", "verdict", "missed", "expected"),
    [
        ("torch", "REFUTED", [], True),
        ("acme", "REFUTED", [], True),
        ("acme", "NOT_REFUTED", [], False),
        ("driftscope", "PROVED", [], False),
        ("driftscope", "REFUTED", [], True),
        ("torch", "PROVED", ["linear/row_position fp32"], True),
    ],
)
def test_exit_1_is_for_a_refuted_kernel_and_for_a_blind_checker(
    target: str, verdict: str, missed: list[str], expected: bool
) -> None:
    found: dict[str, Any] = {"target": target, "verdict": verdict}
    parts: dict[str, Any] = {
        "verdicts": [KernelVerdict.model_construct(**found)],
        "planted": Planted(caught=0, total=1, missed=missed),
    }
    check = KernelsCheck.model_construct(**parts)
    assert is_finding(check) is expected
