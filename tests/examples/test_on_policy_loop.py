"""The closed loop as a user runs it: real TRL, real vLLM, the service's own record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from examples.on_policy_loop.compare import Outcome, table
from examples.on_policy_loop.loop import LoopResult, LoopStep
from examples.on_policy_loop.master_weights import MasterWeightsAdamW
from examples.on_policy_loop.page import write_page
from examples.on_policy_loop.planted import FAULTS

ROOT = Path(__file__).parents[2]
RUN = ROOT / "examples" / "on_policy_loop" / "run.py"


def loop(mode: str, folder: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(RUN), "--json", f"--mode={mode}", f"--data-dir={folder}", *options],
        env={name: text for name, text in os.environ.items() if name != "DRIFTSCOPE_URL"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.slow
def test_exact_is_zero_at_every_step_and_the_same_twice(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    small = ("--steps=4", "--completion-tokens=12", "--full-vocabulary-every=3")
    found = loop("exact", tmp_path, *small)
    assert [step["step"] for step in found["steps"]] == [0, 1, 2, 3]
    for step in found["steps"]:
        assert step["kl_k3"] == 0.0 and step["abs_diff_max"] == 0.0
        assert step["grad_norm"] > 0 and 0 < step["reward"] < 1
    looked = [step["full_vocabulary_equal"] for step in found["steps"]]
    assert looked == [True, None, None, True]
    again = loop("exact", tmp_path, *small)
    assert again["weights_sha256"] == found["weights_sha256"]


@pytest.mark.slow
def test_stock_bf16_is_not(tmp_path: Path) -> None:
    """The control: what exact mode shows is not a comparison that cannot fail."""
    pytest.importorskip("vllm")
    found = loop("bf16+tis", tmp_path, "--steps=2", "--completion-tokens=12")
    for step in found["steps"]:
        assert step["kl_k3"] > 0 and step["abs_diff_max"] > 1e-3
        assert step["trl_abs_diff_mean"] == pytest.approx(step["abs_diff_mean"], abs=1e-6)
    assert found["steps"][0]["full_vocabulary_equal"] is False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("tensor_not_sent", "dropped_tensor_on_reload"),
        ("sync_of_the_step_before", "stale_engine_weights"),
    ],
)
def test_a_faulty_sync_is_named_at_its_step(fault: str, cause: str, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    planted = (f"--fault={fault}", "--fault-at=2")
    found = loop("exact", tmp_path, "--steps=3", "--completion-tokens=12", *planted)
    assert [step["cause"] for step in found["steps"]] == [None, None, cause]
    assert [step["abs_diff_max"] == 0 for step in found["steps"]] == [True, True, False]


def test_an_unknown_mode_is_named() -> None:
    done = subprocess.run(
        [sys.executable, str(RUN), "--mode", "fast"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "exact-fp16" in done.stderr


def test_every_fault_is_known_to_the_command() -> None:
    done = subprocess.run([sys.executable, str(RUN), "--help"], capture_output=True, text=True)
    assert all(fault in done.stdout for fault in FAULTS)


def outcome(mode: str, stressed: bool) -> Outcome:
    steps = (
        LoopStep(0, 0.0, 0.0, 0.0, None, 0.5, 2.0, 3.5, 0.5, None, True),
        LoopStep(1, 1e-4, 0.06, 0.01, None, None, 1.0, 3.4, 0.5, None, False),
    )
    return Outcome(stressed, LoopResult(mode, f"on-policy-{mode}", "small", "", steps))


def test_table_and_page_show_every_run(tmp_path: Path) -> None:
    outcomes = [outcome("bf16", False), outcome("exact", False), outcome("exact", True)]
    rows = table(outcomes).splitlines()
    assert len(rows) == 4 and "exact (stress)" in rows[3] and "1 of 2" in rows[1]
    page = write_page(outcomes, "a machine", tmp_path).read_text(encoding="utf-8")
    assert "a machine" in page and page.count("<svg") == 2
    assert (tmp_path / "as-usual.svg").exists() and (tmp_path / "under-stress.svg").exists()


def test_updates_below_a_sixteen_bit_step_are_not_lost() -> None:
    weight = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = MasterWeightsAdamW([weight], lr=1e-3)
    for _ in range(8):  # each below 2^-8, half of which bfloat16 rounds away at 1
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        optimizer.zero_grad()
    assert torch.allclose(weight.float(), torch.tensor(1 - 8e-3), atol=2e-3)
    plain = torch.ones(4, dtype=torch.bfloat16)
    for _ in range(8):
        plain -= 1e-3
    assert plain.eq(1).all()
