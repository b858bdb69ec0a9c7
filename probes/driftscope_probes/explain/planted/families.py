"""Tiny models with random weights, one per family that `explain` cuts, and how they are saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.models.gemma.configuration_gemma import GemmaConfig
from transformers.models.gemma2.configuration_gemma2 import Gemma2Config
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.mistral.configuration_mistral import MistralConfig
from transformers.models.qwen2.configuration_qwen2 import Qwen2Config
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config

from driftscope_probes.models.tiny_random import build_moe
from driftscope_probes.progress import discard

#: vLLM on CPU wants head_dim 32; the vocabulary is no multiple of 64, so vLLM pads it.
SHAPE: Final[dict[str, Any]] = {
    "vocab_size": 500,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
CONFIGS: Final[dict[str, Callable[[], PreTrainedConfig]]] = {
    "llama": lambda: LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "llama_wide": lambda: LlamaConfig(
        **{**SHAPE, "vocab_size": 1024, "intermediate_size": 1536, "num_hidden_layers": 1}
        | {"max_position_embeddings": 512},
        tie_word_embeddings=False,
    ),
    "qwen2": lambda: Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "qwen3": lambda: Qwen3Config(**SHAPE, head_dim=32, tie_word_embeddings=True),
    "mistral": lambda: MistralConfig(**SHAPE, sliding_window=8),
    "gemma": lambda: GemmaConfig(**SHAPE, head_dim=32),
    "gemma2": lambda: Gemma2Config(
        **SHAPE,
        head_dim=32,
        sliding_window=8,
        query_pre_attn_scalar=48,
        attn_logit_softcapping=20.0,
        final_logit_softcapping=10.0,
    ),
    "gemma2_capped": lambda: Gemma2Config(
        **SHAPE,
        head_dim=32,
        sliding_window=8,
        query_pre_attn_scalar=48,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=None,
    ),
    # A head without a soft cap, which the trainer's own forward does not know.
    "gemma2_plain_head": lambda: Gemma2Config(
        **SHAPE,
        head_dim=32,
        sliding_window=8,
        query_pre_attn_scalar=48,
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
    ),
}


def save(family: str, folder: Path) -> Path:
    """A Hugging Face folder in bf16, or float32 for `qwen3`; `moe` is `models.tiny_random`'s."""
    if family == "moe":
        folder.mkdir(parents=True)
        build_moe(folder, discard)
        return folder
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[family]())
    # Norm weights and biases off what they start at, so that one that is forgotten is seen.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    # The trainer of the fp16 engine keeps float32 masters.
    model = model if family == "qwen3" else model.to(torch.bfloat16)
    model.save_pretrained(folder)
    return folder
