"""Possible: which causes a live pair can have, by its own settings. Free of torch.

In: what data say, the two sides. Out: a belief in which a cause that the pair's own settings rule
out keeps next to nothing: where the difference shows in a pair without a pack, no pack leaks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from driftscope_probes.diagnosis.catalogue import catalogue
from driftscope_probes.diagnosis.controls.sides import Known, Sides
from driftscope_probes.diagnosis.planner import UNEXPLAINED, Belief

Test = Callable[[Sides, Known], bool]
#: What a cause keeps that the settings rule out: a setting may not be what runs, but it errs more
#: rarely than a measurement. With 0.02, three such causes kept a right answer at 0.94.
RULED_OUT: Final = 0.002
#: vLLM's smallest default of tokens per engine step; shorter prompts are read whole.
LEAST_DEFAULT_CHUNK: Final = 2048


def possible_here(belief: Belief, sides: Sides, known: Known) -> Belief:
    """For a difference that the pair itself shows."""
    return _kept(belief, lambda cause: can_be(cause, sides, known))


def beyond_rounding(belief: Belief) -> Belief:
    """For recorded values of one side that are further than the floor from what is got here."""
    return _kept(belief, lambda cause: not catalogue().healthy(cause))


def _kept(belief: Belief, possible: Callable[[str], bool]) -> Belief:
    unexplained = belief.probabilities[UNEXPLAINED]
    weights = {
        cause: p * (1.0 if possible(cause) else RULED_OUT)
        for cause, p in belief.probabilities.items()
        if cause != UNEXPLAINED
    }
    # What is ruled out goes to the causes that are left: a setting says nothing of the unknown.
    scale = (1.0 - unexplained) / sum(weights.values())
    return Belief(
        {cause: weight * scale for cause, weight in weights.items()} | {UNEXPLAINED: unexplained}
    )


def can_be(cause: str, sides: Sides, known: Known) -> bool:
    """True for a cause that no setting rules out. What somebody else's server runs is not known."""
    if cause in OF_ENGINE and sides.engine.kind == "vllm-server":
        return True
    test = OF_ENGINE.get(cause) or OF_PAIR.get(cause)
    return test is None or test(sides, known)


def _never(sides: Sides, known: Known) -> bool:
    """Faults of records, alignment and life cycle, which a pair that we run does not have."""
    return False


def _other_weights(sides: Sides, known: Known) -> bool:
    return sides.engine_model != sides.trainer_model


def _adapter(sides: Sides, known: Known) -> bool:
    return sides.adapter is not None


def _mixture(sides: Sides, known: Known) -> bool:
    return known.mixture_of_experts


def _hybrid(sides: Sides, known: Known) -> bool:
    return known.hybrid


def _shared_rows(sides: Sides, known: Known) -> bool:
    """The trainer's micro-batches hold several sequences."""
    return sides.trainer.micro_batch > 1 and len(sides.prompts) > 1


def _packed(sides: Sides, known: Known) -> bool:
    return sides.trainer.batching == "packed" and _shared_rows(sides, known)


def _padded(sides: Sides, known: Known) -> bool:
    """Padding on the right of a causal model is seen by no response token."""
    left = sides.trainer.batching == "padded" and sides.trainer.padding_side == "left"
    return (left and _shared_rows(sides, known)) or sides.engine.kind == "hf"


def _several_requests(sides: Sides, known: Known) -> bool:
    return sides.engine.batch_size != 1 and len(sides.prompts) > 1


def _short_cache(sides: Sides, known: Known) -> bool:
    return sides.engine.kv_cache_dtype not in (None, "auto")


def _chunks(sides: Sides, known: Known) -> bool:
    most = sides.engine.chunked_prefill_tokens or LEAST_DEFAULT_CHUNK
    return max(map(len, sides.prompts), default=0) > most


def _prefix_cache(sides: Sides, known: Known) -> bool:
    return sides.engine.prefix_caching is not False


def _temperature(sides: Sides, known: Known) -> bool:
    return sides.sampling.temperature not in (0.0, 1.0)


def _truncation(sides: Sides, known: Known) -> bool:
    return sides.sampling.top_p < 1.0 or sides.sampling.top_k > 0


#: Ruled out where the engine is one of ours; of a server, only its owner knows.
OF_ENGINE: Final[Mapping[str, Test]] = {
    "batch_variant_engine": _several_requests,
    # vLLM 0.32 has it off unless it is asked for.
    "cascade_attention": lambda sides, known: sides.engine.cascade_attention is True,
    "chunked_prompt_logprobs": _chunks,
    "compile_or_cudagraph_mode": lambda sides, known: sides.engine.compile,
    "fp8_kv_scales": _short_cache,
    "fp8_kv_tile": _short_cache,
    "generation_config_defaults": _never,
    "hybrid_version_kv": _never,
    "quantized_weights": _other_weights,
    "spec_decode_logprobs": _never,
    "stale_engine_weights": _other_weights,
    "stale_prefix_cache": _prefix_cache,
    "sub_ulp_update": _other_weights,
    "other_checkpoint": _other_weights,
}
#: Ruled out whatever the engine is.
OF_PAIR: Final[Mapping[str, Test]] = {
    "batch_variant_trainer": _shared_rows,
    "chat_template_mismatch": _never,
    "last_token_label": _never,
    "lora_lm_head_dropped": _adapter,
    "lora_merge_rounding": _adapter,
    "lora_not_applied": _adapter,
    "mask_contamination": _never,
    "moe_routing_flip": _mixture,
    "off_by_one": _never,
    "packed_attention_leak": _packed,
    "packed_state_leak": lambda sides, known: _hybrid(sides, known) and _packed(sides, known),
    "pad_attended": _padded,
    "placeholder_logprob": _never,
    "policy_staleness": _never,
    "post_softmax_scaling": _temperature,
    "prompt_response_mispaired": _never,
    "rank_local_corruption": _never,
    "resume_mismatch": _never,
    "retokenization_drift": _never,
    "router_precision": _mixture,
    # No pair that runs here replays routes while it is measured.
    "router_replay_corrupt": _never,
    "ssm_state_dtype": _hybrid,
    "temperature_semantics": _temperature,
    "thinking_stripped": _never,
    "truncation_renorm": _truncation,
}
