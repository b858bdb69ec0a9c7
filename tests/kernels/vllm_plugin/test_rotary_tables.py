"""vLLM and transformers compute one table of cosines and sines: neither is ours, both are used."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

pytest.importorskip("vllm")

HEAD, POSITIONS = 64, 2048
KINDS: dict[str, dict[str, Any]] = {
    "default": {"rope_theta": 10_000.0},
    "default, slow": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "linear": {"rope_theta": 10_000.0, "factor": 2.0},
    "llama3": {
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
    "yarn": {
        "rope_theta": 10_000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 512,
    },
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_the_tables_are_equal(kind: str, dtype: torch.dtype) -> None:
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding import get_rope

    parameters = {"rope_type": kind, **KINDS[kind]}
    with set_current_vllm_config(VllmConfig()):
        layer = get_rope(HEAD, POSITIONS, True, dict(parameters), dtype)
    engine = layer.cos_sin_cache[:POSITIONS].to(dtype)
    config = LlamaConfig(
        hidden_size=4 * HEAD,
        num_attention_heads=4,
        max_position_embeddings=POSITIONS,
        rope_parameters=parameters,
    )
    whole = LlamaRotaryEmbedding(config)(torch.zeros(1, dtype=dtype), torch.arange(POSITIONS)[None])
    trainer = torch.cat([table[0, :, : HEAD // 2] for table in whole], dim=-1)
    assert torch.equal(engine, trainer)
