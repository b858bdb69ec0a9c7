"""slime: arrays of flags in launch scripts."""

from __future__ import annotations

from typing import Any

import pytest

from driftscope_probes.errors import RequestError
from driftscope_probes.lint.readers.registry import read_text

SCRIPT = """#!/bin/bash
if nvidia-smi topo -m | grep -q NV; then HAS_NVLINK=1; else HAS_NVLINK=0; fi
source "${SCRIPT_DIR}/models/qwen3-30B-A3B.sh"
BASE_DIR="/root"
CKPT_ARGS=(
   --hf-checkpoint "${BASE_DIR}/Qwen3-30B-A3B-INT4"
)
ROLLOUT_ARGS=(
   --rollout-temperature 0.8
   # --rollout-top-p 0.9

   --balance-data
)
PERF_ARGS=(
   --tensor-model-parallel-size 2
   --expert-model-parallel-size 4
   --use-dynamic-batch-size
)
GRPO_ARGS=(
   --advantage-estimator grpo
   --eps-clip 0.2
   --eps-clip-high 0.28
   --use-tis
)
SGLANG_ARGS=(
   --sglang-cuda-graph-bs 1 2 4 8 $(seq 16 8 256)
   --sglang-disable-radix-cache
)
MISC_ARGS=(
   --attention-dropout 0.0
   --bf16
)
RUNTIME_ENV_JSON="{
  \\"env_vars\\": {
    \\"OPEN_TRAINING_INT4_FAKE_QAT_FLAG\\": \\"1\\"
  }
}"
ray job submit --address="http://127.0.0.1:8265" \\
   --runtime-env-json="${RUNTIME_ENV_JSON}" \\
   -- python3 train_async.py \\
   --actor-num-nodes 1 \\
   ${MODEL_ARGS[@]} \\
   ${CKPT_ARGS[@]} \\
   ${ROLLOUT_ARGS[@]} \\
   ${PERF_ARGS[@]} \\
   ${GRPO_ARGS[@]} \\
   ${SGLANG_ARGS[@]} \\
   ${MISC_ARGS[@]}
"""


def settings(text: str) -> dict[str, Any]:
    return {one.name: one.value for one in read_text("run.sh", text)}


def test_a_launch_script() -> None:
    assert settings(SCRIPT) == {
        "engine.name": "sglang",
        "engine.model": "/root/Qwen3-30B-A3B-INT4",
        "engine.prefix_caching": False,
        "sampling.temperature": 0.8,
        "trainer.framework": "slime",
        "trainer.backend": "megatron",
        "trainer.asynchronous": True,
        "trainer.tensor_parallel": 2,
        "trainer.expert_parallel": 4,
        "trainer.dynamic_batch": True,
        "trainer.ratio_of": "token",
        "trainer.clip_low": 0.2,
        "trainer.clip_high": 0.28,
        "trainer.correction": "token",
        "trainer.attention_dropout": 0.0,
        "trainer.dtype": "bf16",
        "trainer.quantization": "int4",
    }


def test_a_flag_with_an_equals_sign_and_the_later_of_two() -> None:
    text = "python3 train.py --rollout-temperature=0.8 --rollout-temperature 1\n"
    assert settings(text)["sampling.temperature"] == 1
    assert settings("python train.py --rollout-top-k=20\n")["sampling.top_k"] == 20


def test_another_train_py_is_not_read() -> None:
    with pytest.raises(RequestError, match="understood"):
        read_text("run.sh", "python3 train.py --temperature 0.8 --bf16\n")


def test_a_switch_before_an_array_that_is_not_known() -> None:
    text = "python3 train.py --rollout-top-k 5 --use-tis ${WANDB_ARGS[@]}\n"
    assert settings(text)["trainer.correction"] == "token"


@pytest.mark.parametrize(
    ("defined", "adds"),
    [("", True), ("MISC_ARGS=(\n   # --eps-clip 0.2\n)\n", False), ("MISC_ARGS=()\n", False)],
)
def test_flags_from_elsewhere(defined: str, adds: bool) -> None:
    """What the script leaves out may stand in them."""
    command = "python3 train.py --rollout-batch-size 8 ${MODEL_ARGS[@]} ${MISC_ARGS[@]}\n"
    found = settings(defined + command)
    assert found.get("trainer.adds_to") == ("${MISC_ARGS[@]}" if adds else None)
