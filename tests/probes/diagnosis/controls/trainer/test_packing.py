"""One token of document 1 changes: documents that keep apart, that leak, and that carry a state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Lfm2Config,
    Lfm2ForCausalLM,
    PreTrainedModel,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from driftscope_probes.diagnosis.controls.measurement import NotExercised
from driftscope_probes.diagnosis.controls.trainer.packing import DOCUMENT_PERTURBED

from .conftest import MakeBench, Planted

#: Larger than usual: a flat policy would hide what moves.
SHAPE: dict[str, Any] = {
    "vocab_size": 1001,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "initializer_range": 0.15,
}


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("model", ["tiny_llama", "tiny_moe"])
def test_documents_of_a_healthy_pack_do_not_see_each_other(
    make_bench: MakeBench, request: pytest.FixtureRequest, model: str, dtype: str
) -> None:
    folder = request.getfixturevalue(model)
    bench = make_bench(folder, dtype, moe="moe" in model, micro_batch=4, batching="packed")
    measured = DOCUMENT_PERTURBED.run(bench)
    assert (measured.outcome, measured.value) == ("clean", 0.0)
    # The document itself did move: a control that changes nothing would be clean too.
    assert measured.evidence[1].value == "1"


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_moe"])
def test_attention_across_the_boundary_moves_every_document(
    make_bench: MakeBench, planted: Planted, request: pytest.FixtureRequest, model: str
) -> None:
    folder = request.getfixturevalue(model)
    bench = make_bench(
        folder, desk=planted("pack"), moe="moe" in model, micro_batch=4, batching="packed"
    )
    measured = DOCUMENT_PERTURBED.run(bench)
    assert measured.outcome == "dirty"
    assert measured.evidence[1].value == "1, 2, 3, 4"


def _qwen3_next() -> Qwen3NextForCausalLM:
    """A gated delta net under an attention layer."""
    config = Qwen3NextConfig(
        **SHAPE,
        head_dim=16,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        num_experts=0,
        mlp_only_layers=[0, 1],
        layer_types=["linear_attention", "full_attention"],
    )
    return Qwen3NextForCausalLM(config)


def _lfm2() -> Lfm2ForCausalLM:
    """A short convolution under an attention layer."""
    return Lfm2ForCausalLM(Lfm2Config(**SHAPE, layer_types=["conv", "full_attention"]))


@pytest.mark.parametrize("build", [_qwen3_next, _lfm2])
def test_a_state_that_is_carried_over_the_boundary_moves_the_next_document(
    make_bench: MakeBench, tmp_path: Path, build: Callable[[], PreTrainedModel]
) -> None:
    """No plant: transformers' state models read boundaries from other arguments than positions."""
    torch.manual_seed(0)
    build().to(torch.bfloat16).save_pretrained(tmp_path / "hybrid")
    bench = make_bench(tmp_path / "hybrid", "fp32", micro_batch=4, batching="packed")
    measured = DOCUMENT_PERTURBED.run(bench)
    assert measured.outcome == "dirty"
    assert str(measured.evidence[1].value).startswith("1, 2")


def test_a_trainer_that_pads_is_not_tried(make_bench: MakeBench, tiny_llama: Path) -> None:
    with pytest.raises(NotExercised, match="pads its micro-batches"):
        DOCUMENT_PERTURBED.run(make_bench(tiny_llama, micro_batch=4))
