"""TRL with vLLM, and TRL on two ranks: what arrives equals what TRL itself logs about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load

from driftscope_probes.mismatch.frameworks import aliases
from driftscope_probes.push import PushedStep
from driftscope_probes.tokens import checked_tokens

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
CHILD = Path(__file__).parent / "children" / "grpo.py"
CONFIG = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "num_generations": 2,
    "max_completion_length": 8,
    "max_steps": 3,
    "learning_rate": 2e-3,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
}
VLLM = {
    "use_vllm": True,
    "vllm_mode": "colocate",
    "vllm_gpu_memory_utilization": 0.05,
    "vllm_max_model_length": 256,
}
#: Six digits of TRL's float32 means, over a few dozen tokens.
FLOAT32 = 1e-5


def train(
    url: str,
    folder: Path,
    model: Path,
    config: dict[str, Any],
    ranks: int = 1,
    strict: bool = False,
) -> list[dict[str, Any]]:
    given = {
        "model": str(model),
        "output": str(folder),
        "config": CONFIG | config,
        "strict": strict,
        "vllm": "use_vllm" in config,
    }
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable, *(launcher if ranks > 1 else []), str(CHILD), json.dumps(given)]
    environment = {
        "PYTHONPATH": os.pathsep.join(
            str(ROOT / root) for root in ("service", "probes", "kernels")
        ),
        "DRIFTSCOPE_URL": url,
        "DRIFTSCOPE_RUN": "trl",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(ranks)]


def test_with_vllm_the_aliases_are_what_trl_logs(
    serve: Callable[..., Any],
    steps_of: Callable[[Any], dict[int, PushedStep]],
    tiny_llama: Path,
    tmp_path: Path,
) -> None:
    pytest.importorskip("vllm")
    stub = serve()
    outcome = train(stub.url, tmp_path, tiny_llama, VLLM)[0]
    assert outcome["counts"] == [3, 0, 0], outcome["error"]
    steps = steps_of(stub)
    logged = [log for log in outcome["log"] if "sampling/sampling_logp_difference/mean" in log]
    assert len(logged) == len(steps) == 3
    for number, log in enumerate(logged):
        step = steps[number]
        assert step.metadata["engine"] == "vllm"
        # The engine's own, which the model's configuration decides; the trainer was loaded in fp32.
        assert step.metadata["rollout_dtype"] == "bf16"
        assert step.metadata["trainer_dtype"] == "fp32"
        assert step.metadata["logprobs_mode"] == "processed_logprobs"
        pair = checked_tokens(step.rollout, step.trainer, step.cu_seqlens, step.mask)
        ours = aliases(pair)["trl"]
        assert (ours["sampling/sampling_logp_difference/max"] or 0.0) > 1e-3  # bf16 against fp32
        for name, value in ours.items():
            assert value == pytest.approx(log[name], rel=FLOAT32), name


def test_two_ranks_push_one_step(
    serve: Callable[..., Any], tiny_llama: Path, tmp_path: Path
) -> None:
    # Each rank opens the attempt and then pushes its shard: the fourth request is the last shard.
    receipt: Any = (201, {"missing": [1]}, {})
    told = {"verdict": "bug_like", "sentence": "It is.", "excess": 7.5, "causes": []}
    analysis: Any = (201, {"missing": [1], "step": 0, "diagnosis": told}, {})
    stub = serve(receipt, receipt, receipt, analysis)
    # strict: both have their answers before TRL logs the step.
    outcomes = train(stub.url, tmp_path, tiny_llama, {"max_steps": 1}, ranks=2, strict=True)
    assert [outcome["counts"] for outcome in outcomes] == [[1, 0, 0], [1, 0, 0]], outcomes
    # What torchrun starts is one attempt, which both ranks name.
    steps = [(path, body) for path, _, body in stub.requests if "/steps/" in path]
    assert sorted(path.partition("&attempt=")[0] for path, _ in steps) == [
        f"/v1/runs/trl/steps/0/logprobs?shard={rank}&shards=2" for rank in range(2)
    ]
    assert len({path.partition("&attempt=")[2] for path, _ in steps}) == 1
    assert steps[0][1] != steps[1][1]
    for path, body in steps:
        rank = int(path[path.index("shard=") + len("shard=")])
        assert set(load(body)["rank"].tolist()) == {rank}
    # One of them was told the verdict; the one that logs has it.
    for outcome in outcomes:
        assert [log["driftscope/verdict"] for log in outcome["log"] if "loss" in log] == [3.0]
