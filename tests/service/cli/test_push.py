"""`driftscope push` as a user runs it, against a real service on a real port."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from driftscope_service.auth.key import Scope, new_key
from driftscope_service.auth.store import KeyRepository
from driftscope_service.cli.main import main

Run = Callable[..., subprocess.CompletedProcess[str]]
SOURCES = Path(__file__).parents[3]
COMMAND = "from driftscope_service.cli.main import main; main()"


@pytest.fixture
def push(tmp_path: Path) -> Run:
    roots = os.pathsep.join(str(SOURCES / root) for root in ("service", "probes", "kernels"))

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", COMMAND, "push", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": roots, "COLUMNS": "80", **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def step_file(tmp_path: Path, pushing: Any) -> str:
    save_file(pushing.tensors(), tmp_path / "step.safetensors", {"model": "tiny"})
    return "step.safetensors"


def export(step: int, rank: int) -> str:
    line = {
        "schema_version": 1,
        "step": step,
        "token_ids": [1, 2, 3],
        "loss_mask": [False, True, True],
        "inference_logprobs": [0.0, -1.0, -2.0 - rank],
        "trainer_logprobs": [0.0, -1.5, None],
    }
    return json.dumps(line) + "\n"


def test_the_comparison_is_that_of_analyze(push: Run, url: str, step_file: str) -> None:
    done = push(step_file, "--run", "r", "--step", "3", "--url", url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("r step 3: 4 sequences, 18 tokens\nat the floor: ")
    assert "Difference in log-probability" not in done.stdout
    done = push(step_file, "--run", "r", "--step", "3", "--url", url, "--all")
    assert "model tiny" in done.stdout
    assert "Difference in log-probability" in done.stdout


@pytest.mark.parametrize("coding", [[], ["--zstd"]])
def test_json_is_the_answer_and_again_is_the_same(
    push: Run, url: str, step_file: str, pushing: Any, coding: list[str]
) -> None:
    arguments = (step_file, "--run", "r", "--step", "3", "--json", *coding)
    first = push(*arguments, DRIFTSCOPE_URL=url)
    assert first.returncode == 0, first.stderr
    answer = json.loads(first.stdout)
    assert answer == pushing.client.get("/v1/runs/r/steps/3").json()
    expected = np.abs(
        np.subtract(*(pushing.tensors()[n] for n in ("trainer_logprobs", "rollout_logprobs")))
    )
    assert answer["comparison"]["abs_diff_mean"] == pytest.approx(float(expected.mean()), rel=1e-6)
    again = push(step_file, "--run", "r", "--step", "3", "--json", DRIFTSCOPE_URL=url)
    assert json.loads(again.stdout) == answer


def test_json_and_prime_rl_files(push: Run, url: str, tmp_path: Path) -> None:
    lists = {"rollout_logprobs": [[-0.5, -1.0]], "trainer_logprobs": [[-0.5, None]]}
    (tmp_path / "step.json").write_text(json.dumps(lists))
    (tmp_path / "rank_0.jsonl").write_text(export(7, 0))
    for number, file in enumerate(("step.json", "rank_0.jsonl")):
        done = push(file, "--run", "r", "--step", str(number), "--url", url, "--json")
        assert done.returncode == 0, done.stderr
        comparison = json.loads(done.stdout)["comparison"]
        assert (comparison["tokens"], comparison["trainer_nonfinite"]) == (1, 1)
    assert json.loads(done.stdout)["metadata"]["framework"] == "prime-rl"


def test_the_ranks_of_an_export_are_shards(push: Run, url: str, tmp_path: Path) -> None:
    (tmp_path / "rank_0").write_text(export(7, 0))
    (tmp_path / "rank_1").write_text(export(7, 1))
    common = ("--run", "r", "--step", "7", "--url", url, "--shards", "2", "--format", "prime-rl")
    first = push("rank_1", "--shard", "1", *common)
    assert first.returncode == 0, first.stderr
    assert first.stdout == "shard 1 of 2 is stored; missing: 0\n"
    second = push("rank_0", "--shard", "0", *common, "--json")
    answer = json.loads(second.stdout)
    assert (answer["shards"], answer["sequences"], answer["tokens"]) == (2, 2, 4)


def test_a_folder_is_pushed_step_by_step(
    url: str,
    tmp_path: Path,
    pushing: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every step under its own number; columns under other names; in this process."""

    def pushed(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["driftscope", "push", *arguments, "--url", url])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    for step in (3, 12):
        folder = tmp_path / "token_exports" / f"step_{step}"
        folder.mkdir(parents=True)
        for rank in range(2):
            (folder / f"rank_{rank}.jsonl").write_text(export(step, rank))
    said = pushed(str(tmp_path / "token_exports"), "--run", "r")
    for step in (3, 12):
        assert f"r step {step}: 2 sequences, 4 tokens" in said
        assert pushing.client.get(f"/v1/runs/r/steps/{step}").json()["tokens"] == 4
    (tmp_path / "step.csv").write_text("gen_logp,old_logp\n-1,-1.5\n-2,-2.5\n")
    mapped = ("--columns", "rollout_logprobs=gen_logp,trainer_logprobs=old_logp")
    said = pushed(str(tmp_path / "step.csv"), "--run", "c", "--step", "1", *mapped)
    assert "c step 1: 1 sequence, 2 tokens" in said


def test_refusals_are_told_in_the_words_of_the_service(
    push: Run, url: str, step_file: str, tmp_path: Path, pushing: Any
) -> None:
    # Other content for a step is refused where the push names the attempt that has it.
    again = ("--attempt", "first")
    assert push(step_file, "--run", "r", "--step", "3", "--url", url, *again).returncode == 0
    (tmp_path / "other.safetensors").write_bytes(pushing.body(seed=9))
    (tmp_path / "cut.safetensors").write_bytes(b"\x09")
    (tmp_path / "step.npz").write_bytes(b"PK")
    for arguments, told in (
        (("other.safetensors", "--run", "r", "--step", "3", "--url", url, *again), "step 3"),
        (("cut.safetensors", "--run", "r", "--step", "4", "--url", url), "it ends after 1 byte."),
        (("step.npz", "--run", "r", "--step", "4", "--url", url), "it is not a valid archive"),
        (("absent.json", "--run", "r", "--step", "4", "--url", url), "there is no such file"),
        ((step_file, "--run", "r", "--step", "4", "--shard", "0"), "without --shards"),
        ((step_file, "--run", "r", "--step", "4", "--shards", "2"), "without --shard."),
        ((step_file, "--run", "a/b", "--step", "4", "--url", url), "run name 'a/b'"),
        ((step_file, "--run", "r", "--step", "4", "--format", "pt"), "unknown format 'pt'"),
        ((step_file, "--run", "r", "--step", "4", "--url", "http://[::1"), "is not a URL"),
    ):
        done = push(*arguments)
        assert done.returncode == 2, done.stdout
        assert done.stdout == ""
        assert told in done.stderr and "What to do:" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_service_that_is_not_there(push: Run, step_file: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = push(step_file, "--run", "r", "--step", "1", "--url", f"http://127.0.0.1:{port}")
    assert done.returncode == 2
    assert "cannot be reached" in done.stderr and "driftscope serve" in done.stderr


def test_a_service_that_asks_for_a_key(
    push: Run, step_file: str, run_service: Any, serving: Any, tmp_path: Path
) -> None:
    key = new_key()
    with (
        run_service(require_keys=True, data_dir=tmp_path / "keyed") as running,
        serving(running) as url,
    ):
        with running.service.database.write() as connection:
            KeyRepository(connection).add(key, name="p", scopes=[Scope.INGEST], expires_at=None)
        arguments = (step_file, "--run", "r", "--step", "1", "--url", url, "--json")
        refused = push(*arguments)
        assert refused.returncode == 2
        assert "key" in refused.stderr and "Traceback" not in refused.stderr
        done = push(*arguments, "--api-key-env", "MY_KEY", MY_KEY=key.token)
        assert done.returncode == 0, done.stderr


def test_usage(push: Run, step_file: str) -> None:
    assert push(step_file, "--run", "r").returncode == 2
    assert push(step_file, "--run", "r", "--step", "-1").returncode == 2
