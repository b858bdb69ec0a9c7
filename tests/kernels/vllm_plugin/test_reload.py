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
def test_reloaded_weights_are_in_use(
    tiny_qwen3: Path,
    tiny_qwen3_updated: Path,
    tiny_moe: Path,
    tiny_moe_updated: Path,
    run_engines: RunEngines,
    kernels: str,
    follows: bool,
) -> None:
    """Stock vLLM 0.32 on CPU is the control: it goes on with the old lm_head of tied embeddings,

    and copies experts unpacked over what it reads as packed.
    """
    mixture, fresh_mixture, dense, fresh_dense = run_engines(
        [
            {**ALONE, "model": tiny_moe, "reload": tiny_moe_updated},
            {**ALONE, "model": tiny_moe_updated},
            {**ALONE, "model": tiny_qwen3, "reload": tiny_qwen3_updated},
            {**ALONE, "model": tiny_qwen3_updated},
        ],
        kernels=kernels,
        keep=True,
    )
    for reloaded, fresh in ((dense, fresh_dense), (mixture, fresh_mixture)):
        assert reloaded["among"]["0"]["logprobs"] != fresh["among"]["0"]["logprobs"]
        assert (reloaded["reloaded"] == fresh["among"]["0"]) is follows
