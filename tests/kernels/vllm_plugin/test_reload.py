"""New weights in a running engine are the weights it computes with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

RunEngines = Callable[..., list[dict[str, Any]]]

ALONE = {
    "dtype": "bfloat16",
    "engine": {"enable_prefix_caching": False},
    "others": (0,),
    "temperature": 1.0,
}


@pytest.mark.parametrize(("kernels", "follows"), [("invariant", True), ("stock", False)])
def test_tied_embeddings(
    tiny_qwen3: Path,
    tiny_qwen3_updated: Path,
    run_engines: RunEngines,
    kernels: str,
    follows: bool,
) -> None:
    """Stock vLLM 0.32 on CPU goes on with the old lm_head: the control."""
    reloaded, fresh = run_engines(
        [
            {**ALONE, "model": tiny_qwen3, "reload": tiny_qwen3_updated},
            {**ALONE, "model": tiny_qwen3_updated},
        ],
        kernels=kernels,
    )
    assert reloaded["among"]["0"]["logprobs"] != fresh["among"]["0"]["logprobs"]
    assert (reloaded["reloaded"] == fresh["among"]["0"]) is follows


@pytest.mark.parametrize(("kernels", "follows"), [("invariant", True), ("stock", False)])
def test_experts(
    tiny_moe: Path, tiny_moe_updated: Path, run_engines: RunEngines, kernels: str, follows: bool
) -> None:
    """Stock vLLM 0.32 on CPU copies experts unpacked over what it reads as packed."""
    reloaded, fresh = run_engines(
        [
            {**ALONE, "model": tiny_moe, "reload": tiny_moe_updated},
            {**ALONE, "model": tiny_moe_updated},
        ],
        kernels=kernels,
    )
    assert reloaded["among"]["0"]["logprobs"] != fresh["among"]["0"]["logprobs"]
    assert (reloaded["reloaded"] == fresh["among"]["0"]) is follows
