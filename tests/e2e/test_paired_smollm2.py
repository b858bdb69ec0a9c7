"""The figures that driftscope promises, on a real model through real vLLM."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

Paired = Callable[..., dict[str, Any]]


def test_fp16_is_closer_than_bf16_by_the_published_factor(paired: Paired, smollm2: object) -> None:
    arguments = ["--model", "smollm2-135m", "--prompts", "8", "--max-tokens", "32"]
    printed = paired(*arguments, "--no-headroom")
    cells = {
        (cell["engine_dtype"], cell["trainer_dtype"]): cell["comparison"]
        for cell in printed["grid"]
    }
    assert len(cells) == 9
    bf16, fp16, fp32 = (cells[dtype, dtype] for dtype in ("bf16", "fp16", "fp32"))
    assert fp32["abs_diff_mean"] < 1e-4
    assert 5 < bf16["abs_diff_mean"] / fp16["abs_diff_mean"] < 12
    assert 24 < bf16["kl_k3"] / fp16["kl_k3"] < 120
    # A mixed cell is as bad as its worse side: changing one side alone buys little.
    for mixed in (cells["bf16", "fp32"], cells["fp32", "bf16"]):
        assert mixed["abs_diff_mean"] > 0.5 * bf16["abs_diff_mean"]
    for cell in cells.values():
        low, high = cell["intervals"]["abs_diff_mean"]
        assert low < cell["abs_diff_mean"] < high
    abs_diff = printed["reading"]["figures"][0]
    assert abs_diff["value"] == pytest.approx(bf16["abs_diff_mean"] / fp16["abs_diff_mean"])
    assert abs_diff["interval"][0] < abs_diff["value"] < abs_diff["interval"][1]
