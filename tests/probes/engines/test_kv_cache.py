from types import SimpleNamespace

from driftscope_probes.engines.settings import LEAST_BYTES, MOST_BYTES, kv_cache_bytes

SMOLLM2 = SimpleNamespace(
    num_hidden_layers=30, num_key_value_heads=3, num_attention_heads=9, hidden_size=576
)


def test_every_sequence_fits_with_a_partly_empty_block() -> None:
    need = kv_cache_bytes(SMOLLM2, dtype="fp32", sequences=8, context=100)
    per_token = 2 * 30 * 3 * 64 * 4
    assert need >= 8 * 128 * per_token
    assert kv_cache_bytes(SMOLLM2, dtype="bf16", sequences=64, context=1000) * 2 == kv_cache_bytes(
        SMOLLM2, dtype="fp32", sequences=64, context=1000
    )


def test_bounds() -> None:
    assert kv_cache_bytes(SMOLLM2, dtype="bf16", sequences=1, context=1) == LEAST_BYTES
    assert kv_cache_bytes(SMOLLM2, dtype="fp32", sequences=4096, context=131_072) == MOST_BYTES
