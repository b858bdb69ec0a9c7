"""The choice of kernels: what is accepted, what reaches the engine, what is recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.rollout import roll_out
from driftscope_probes.engines.settings import EngineSettings, child_environment
from driftscope_probes.progress import discard

MakeTask = Callable[..., RolloutTask]


@pytest.mark.parametrize("kind", ["hf", "vllm-server"])
def test_invariant_is_for_vllm_in_process(kind: str) -> None:
    with pytest.raises(ValidationError, match="is for engine vllm"):
        EngineSettings(kind=kind, kernels="invariant")


def test_invariant_is_not_compiled() -> None:
    with pytest.raises(ValidationError, match="leave compile off"):
        EngineSettings(kernels="invariant", compile=True)


def test_the_request_decides_not_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTSCOPE_VLLM_KERNELS", "invariant")
    assert child_environment(EngineSettings())["DRIFTSCOPE_VLLM_KERNELS"] == "stock"
    monkeypatch.setenv("DRIFTSCOPE_VLLM_ROUNDING", "vllm")
    chosen = child_environment(EngineSettings(kernels="invariant"))
    assert chosen["DRIFTSCOPE_VLLM_KERNELS"] == "invariant"
    assert chosen["DRIFTSCOPE_VLLM_ROUNDING"] == "transformers"


@pytest.mark.slow
def test_recorded_and_the_same_in_every_batch(make_task: MakeTask, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    together = roll_out(make_task("vllm", "bf16", kernels="invariant"), tmp_path / "a", discard)
    alone_task = make_task("vllm", "bf16", kernels="invariant", batch_size=1)
    alone = roll_out(alone_task, tmp_path / "b", discard)
    assert together.trace.token_ids.tolist() == alone.trace.token_ids.tolist()
    assert together.trace.logprobs.tobytes() == alone.trace.logprobs.tobytes()
    settings = together.trace.meta.settings
    assert settings["kernels"] == "invariant"
    assert settings["kernel_coverage"]["uncovered"] == {}
    assert settings["kernel_coverage"]["covered"]["Attention"] == 3
    assert settings["kernel_coverage"]["rounding"] == "transformers"
