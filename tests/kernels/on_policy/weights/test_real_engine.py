"""A tensor that is not sent to a real engine is named; so is a sync that does not happen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import driftscope_kernels

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("colocated_script.py")


@pytest.fixture(scope="module")
def looks(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    result = tmp_path_factory.mktemp("colocated") / "result.json"
    assert driftscope_kernels.__file__ is not None
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(driftscope_kernels.__file__).parents[1]),
        "DRIFTSCOPE_VLLM_KERNELS": "invariant",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1",
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tiny_llama), str(result)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    found: list[dict[str, Any]] = json.loads(result.read_text())
    return found


def test_a_whole_sync_is_equal_down_to_known_tokens(looks: list[dict[str, Any]]) -> None:
    for found in looks[0].values():
        assert found["kind"] == "equal" and found["unseen_tensors"] == 0
        assert found["rollout"] == found["trainer"]
    assert looks[0]["before"]["function_diff"] == 0.0


def test_the_tensor_that_was_not_sent_is_named(looks: list[dict[str, Any]]) -> None:
    for found in looks[1].values():
        assert found["kind"] == "tensor_not_sent" and found["versions_behind"] == 1
        assert found["differing"] == ["model.layers.1.self_attn.k_proj.weight"]


def test_a_sync_that_does_not_happen(looks: list[dict[str, Any]]) -> None:
    """One tensor is two syncs behind then, all others one."""
    for found in looks[2].values():
        assert found["kind"] == "tensor_not_sent" and found["versions_behind"] is None
        assert found["differing_tensors"] > 20
