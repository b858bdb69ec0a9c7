"""Decode against re-prefill: the engine reads what it has just decoded, as part of a prompt.

In: a Bench. Out: clean where both give the same log-probabilities.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement
from driftscope_probes.diagnosis.controls.sides import AS_IS_ENGINE, EngineChange, gap_of

RAW = EngineChange(settings=(("logprobs_mode", "raw_logprobs"),))


def decode_reprefill(bench: Bench) -> Measurement:
    change = as_reported_raw(bench)
    sampled = bench.sample(change)
    gap = gap_of(sampled.logprobs, bench.rescore(sampled.sequences, change))
    return bench.agree(gap, "decoded tokens against the same tokens read by the same engine")


def as_reported_raw(bench: Bench) -> EngineChange:
    """What vLLM reports of a prompt is raw, in whatever mode: decoded values have to be raw too."""
    raw = bench.sides.engine.logprobs_mode == "raw_logprobs"
    # A server's mode is what its user says; it cannot be changed from here.
    return AS_IS_ENGINE if raw or not bench.known.restartable else RAW


DECODE_REPREFILL = Control(
    name="decode_reprefill",
    title="Let the engine read its own responses as a prompt",
    separates="Decoding that errs, or reads a cache that is wrong, from errors that prefill has "
    "too: weights, positions, precision.",
    null="sigma 0, equal bits (tiny Llama in bf16 and fp32, tiny MoE and SmolLM2 in bf16).",
    cost_s=3.0,
    positive="dirty",
    points_to={
        "prefill_vs_decode_kernel": 0.95,
        "lora_lm_head_dropped": 0.95,
        "spec_decode_logprobs": 0.95,
        "chunked_prompt_logprobs": 0.95,
        "ssm_state_dtype": 0.9,
        "stale_prefix_cache": 0.7,
        "hybrid_version_kv": 0.7,
        # Prefill reads what it has just computed, where decoding reads what was rounded.
        "fp8_kv_tile": 0.6,
        "fp8_kv_scales": 0.2,
        "cascade_attention": 0.5,
        "batch_variant_engine": 0.5,
    },
    run=decode_reprefill,
)
