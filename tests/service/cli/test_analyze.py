"""`driftscope analyze` as a user runs it: good files of each format, and refused ones."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from driftscope_probes.analysis import analyze_step
from driftscope_probes.floor.store import FloorStore, StoredFloor
from driftscope_probes.mismatch import compare
from driftscope_probes.push.pushed_step import pushed_step
from driftscope_probes.trace import Trace, TraceMeta
from driftscope_probes.trace_file import write_pair

Run = Callable[..., subprocess.CompletedProcess[str]]
SOURCES = Path(__file__).parents[3]
COMMAND = "from driftscope_service.cli.main import main; main()"
LENGTHS = (5, 3, 9, 1)


@pytest.fixture
def analyze(tmp_path: Path) -> Run:
    """The command from these sources, in an empty folder."""
    roots = os.pathsep.join(str(SOURCES / root) for root in ("service", "probes", "kernels"))

    def run(*arguments: str, columns: int = 80) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", COMMAND, "analyze", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": roots, "COLUMNS": str(columns)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def sides() -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(3)
    rollout = np.log(random.beta(3, 1, sum(LENGTHS))).astype(np.float32)
    trainer = (rollout + random.normal(0, 0.3, rollout.size)).astype(np.float32)
    return {"rollout_logprobs": rollout, "trainer_logprobs": trainer}


@pytest.fixture
def pair_file(tmp_path: Path, sides: dict[str, NDArray[Any]]) -> Path:
    """What `probe paired` leaves in its pairs folder."""
    tokens = sum(LENGTHS)

    def side(name: str, meta: TraceMeta) -> Trace:
        return Trace(
            token_ids=np.arange(tokens, dtype=np.int32),
            logprobs=sides[name],
            cu_seqlens=np.cumsum([0, *LENGTHS]),
            mask=np.arange(tokens) != 2,
            meta=meta,
        )

    rollout = side("rollout_logprobs", TraceMeta("rollout", "tiny", "bf16", "vllm", "0.32"))
    trainer = side("trainer_logprobs", TraceMeta("trainer", "tiny", "fp32", "trainer", "5.19"))
    write_pair(rollout, trainer, tmp_path / "bf16-fp32.safetensors")
    return tmp_path / "bf16-fp32.safetensors"


def test_json_holds_the_comparison_the_aliases_and_the_presets(
    analyze: Run, pair_file: Path, sides: dict[str, NDArray[Any]]
) -> None:
    done = analyze(pair_file.name, "--json", "--resamples", "50")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert set(printed) == {
        *("comparison", "diagnosis", "routing", "aliases", "presets"),
        *("hygiene", "profiles", "notes", "unused", "lint"),
    }
    expected = compare(
        sides["rollout_logprobs"],
        sides["trainer_logprobs"],
        np.cumsum([0, *LENGTHS]),
        np.arange(sum(LENGTHS)) != 2,
        resamples=50,
    )
    assert printed["comparison"] == json.loads(json.dumps(expected.to_dict()))
    assert printed["diagnosis"]["verdict"] and printed["routing"] is None
    assert {"verl", "trl", "prime_rl"} <= set(printed["aliases"])
    assert "left_out" in printed["presets"]["prime_rl.dppo_mask"]


def test_advantages_and_entropy_reach_the_presets_and_aliases(
    analyze: Run, tmp_path: Path, sides: dict[str, NDArray[Any]]
) -> None:
    extra = {name: np.ones(sum(LENGTHS), np.float32) for name in ("advantages", "entropy")}
    limits = np.cumsum([0, *LENGTHS])
    save_file({**sides, **extra, "cu_seqlens": limits}, tmp_path / "step.safetensors")
    printed = json.loads(analyze("step.safetensors", "--json", "--resamples", "0").stdout)
    assert "tokens_dropped" in printed["presets"]["prime_rl.dppo_mask"]
    assert printed["comparison"]["intervals"] == {}


def test_entropy_and_versions_reach_the_comparison(sides: dict[str, NDArray[Any]]) -> None:
    entropy = np.random.default_rng(0).random(sum(LENGTHS), np.float32)
    arrays = sides | {
        "cu_seqlens": np.cumsum([0, *LENGTHS]),
        "entropy": entropy,
        "behavior_version": np.array([7, 7, 5, 6], np.int32),
    }

    def comparison(**metadata: str) -> dict[str, Any]:
        found: dict[str, Any] = analyze_step(pushed_step(arrays, metadata)).to_dict()["comparison"]
        return found

    counted = comparison(weights_version="7")
    assert counted["entropy_mean"] == entropy.astype(np.float64).mean() != entropy.mean()
    assert counted["lag_max"] == 2
    assert counted["stale_token_share"] == pytest.approx((LENGTHS[2] + LENGTHS[3]) / sum(LENGTHS))
    for version in ("", "a1b2c3", "9" * 40):
        assert "lag_max" not in comparison(weights_version=version)


def test_the_table_fits_and_cuts_no_number(analyze: Run, pair_file: Path) -> None:
    done = analyze(pair_file.name, "--all")
    assert done.returncode == 0, done.stderr
    assert "bf16-fp32.safetensors: 4 sequences, 18 tokens" in done.stdout
    assert "engine vllm, engine_version 0.32, framework driftscope, model tiny" in done.stdout
    assert "Difference in log-probability" in done.stdout
    assert "presets would drop and clip nothing" in done.stdout
    assert "…" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    narrow = analyze(pair_file.name, "--all", columns=40).stdout
    words = {word for word in done.stdout.split() if any(map(str.isdigit, word))}
    assert words <= set(narrow.split())


def test_the_answer_fits_on_half_a_screen(analyze: Run, pair_file: Path) -> None:
    done = analyze(pair_file.name, columns=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("bf16-fp32.safetensors: 4 sequences, 18 tokens\n")
    assert len(done.stdout.splitlines()) <= 24
    for label in ("mean |Δ|", "k3", "mean ρ"):
        assert label in done.stdout
    assert "presets would drop" not in done.stdout and "--all" in done.stdout


def test_the_floors_of_a_service_are_used(analyze: Run, pair_file: Path, tmp_path: Path) -> None:
    floor = StoredFloor(
        schema_version="1", model="tiny", fingerprint=None, rollout_dtype="bf16",
        trainer_dtype="fp32", machine="a CPU", sigma=0.0123, low=None, high=None,
        basis="same_side", tokens=512, sequences=16, measured_by="floor",
        created_at="2026-11-29T17:00:00+00:00",
    )  # fmt: skip
    FloorStore(tmp_path / "data" / "floors").put([floor])

    def found(*arguments: str) -> Any:
        done = analyze(pair_file.name, "--json", "--resamples", "0", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["diagnosis"]["floor"]

    assert found()["source"] == "prior"
    calibrated = found("--data-dir", "data")
    assert (calibrated["source"], calibrated["sigma"]) == ("calibrated", 0.0123)
    said = analyze(pair_file.name, "--data-dir", "data", columns=100).stdout
    assert "times the calibrated floor (bf16 × fp32, σ 0.0123 nats)" in said


def test_small_steps_as_json_and_prime_rl_exports(analyze: Run, tmp_path: Path) -> None:
    lists = {"rollout_logprobs": [[-0.5, -1.0]], "trainer_logprobs": [[-0.5, None]]}
    (tmp_path / "step.json").write_text(json.dumps(lists))
    comparison = json.loads(analyze("step.json", "--json").stdout)["comparison"]
    assert (comparison["tokens"], comparison["trainer_nonfinite"]) == (1, 1)
    line = {
        "schema_version": 1,
        "step": 1,
        "token_ids": [1, 2],
        "loss_mask": [False, True],
        "inference_logprobs": [0.0, -1.0],
        "trainer_logprobs": [0.0, -1.5],
    }
    (tmp_path / "rank_0").write_text(json.dumps(line) + "\n")
    printed = json.loads(analyze("rank_0", "--format", "prime-rl", "--json").stdout)
    assert printed["comparison"]["abs_diff_mean"] == 0.5


def test_a_step_without_tokens_says_why_nothing_is_defined(analyze: Run, tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text('{"rollout_logprobs": [[]], "trainer_logprobs": [[]]}')
    done = analyze("e.json", "--all")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no unmasked token has a finite log-probability") == 1


STRANGE = st.sampled_from([0.0, 1.5, -1e38, 1e38, *map(float, ("nan", "inf", "-inf"))])


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.lists(
        st.tuples(STRANGE | st.floats(-20, 0, width=32), STRANGE | st.floats(-20, 0, width=32))
    ),
    masked=st.integers(0, 3),
)
def test_whatever_was_sent_the_analysis_is_json(
    tokens: list[tuple[float, float]], masked: int
) -> None:
    values = np.array(tokens, np.float32).reshape(-1, 2)
    step = pushed_step(
        {
            "rollout_logprobs": values[:, 0],
            "trainer_logprobs": values[:, 1],
            "cu_seqlens": np.array([0, len(tokens) // 2, len(tokens)]),
            "mask": np.arange(len(tokens)) >= masked,
            "advantages": values[:, 1],
        },
        {},
    )
    json.dumps(analyze_step(step, resamples=20).to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("name", "content", "arguments", "told"),
    [
        ("cut.safetensors", b"\x09", [], "cut.safetensors: it ends after 1 byte"),
        ("step.json", b'{"rollout_logprobs": []}', [], "there is no trainer_logprobs"),
        ("step.log", b"PK", [], "names no format, and it begins with"),
        ("step.npz", b"PK", ["--format", "pt"], "unknown format 'pt'"),
        ("other.txt", b"", ["absent.safetensors"], "absent.safetensors: there is no such file"),
    ],
)
def test_refused_with_the_reason_and_what_to_do(
    analyze: Run, tmp_path: Path, name: str, content: bytes, arguments: list[str], told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    file = [] if name == "other.txt" else [name]
    done = analyze(*file, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert told in done.stderr and "What to do:" in done.stderr
    assert "Traceback" not in done.stderr
