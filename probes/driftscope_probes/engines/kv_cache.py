"""How much memory the key-value cache of a rollout needs, from the model's configuration."""

from __future__ import annotations

from typing import Any

from driftscope_probes.dtypes import Dtype

BYTES: dict[Dtype, int] = {"bf16": 2, "fp16": 2, "fp32": 4}
#: vLLM's largest default block; every sequence may leave one partly empty.
BLOCK_TOKENS = 128
#: vLLM keeps one block for padding; below this a tiny model would get no usable block.
LEAST_BYTES = 64 * 2**20
#: 64 sequences of 4,096 tokens of an 8B model. More only lets more sequences run at once.
MOST_BYTES = 32 * 2**30


def kv_cache_bytes(config: Any, *, dtype: Dtype, sequences: int, context: int) -> int:
    """Bytes for `sequences` of `context` tokens of a Hugging Face text config."""
    blocks = -(-context // BLOCK_TOKENS) + 1
    need = bytes_per_token(config, dtype) * blocks * BLOCK_TOKENS * (sequences + 1)
    return max(LEAST_BYTES, min(need, MOST_BYTES))


def bytes_per_token(config: Any, dtype: Dtype) -> int:
    """Keys and values of one token in all layers."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size: int = 2 * config.num_hidden_layers * heads * head_dim * BYTES[dtype]
    return size
