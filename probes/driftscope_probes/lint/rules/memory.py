"""Rules of what the engine keeps: keys and values, recurrent states, prefixes, and itself asleep.

In: nothing. Out: RULES.
"""

from __future__ import annotations

from typing import Final

from driftscope_probes.lint.base import Rule
from driftscope_probes.lint.conditions import (
    Either,
    Known,
    MoreThan,
    OneOf,
    Other,
    Since,
    Unless,
    Unlike,
    Unsaid,
    equals,
)

#: First release after vLLM kept those scales among the buffers that sleep saves (53508, 2026-08).
_BUFFERS: Final = (0, 29)
#: Words of kv_cache_dtype that keep 16 bits, or the dtype of the model.
_WHOLE_KV: Final = ("auto", "bf16", "bfloat16", "fp16", "float16", "half", "fp32", "float32")
_UNSCALED_KV: Final = ("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc")

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        name="kv-fp8-without-scales",
        severity="warning",
        when=(
            OneOf("engine.kv_cache_dtype", _UNSCALED_KV),
            Unless(equals("engine.kv_scales", True)),
            Unsaid("model.kv_scales"),
            # Their latent cache carries a scale of its own per token.
            Unsaid("model.sparse_attention"),
        ),
        why="Unless the checkpoint brings scales of its own, keys and values are rounded to FP8 "
        "with the scale 1: what exceeds the range is cut, and small values lose most of their "
        "bits.",
        remedy="Leave kv_cache_dtype on auto, or serve a checkpoint with k_scale and v_scale.",
        source="https://github.com/NVIDIA-NeMo/RL/pull/3226",
        cause="fp8_kv_scales",
    ),
    Rule(
        name="kv-quantised",
        severity="warning",
        when=(
            Other("engine.kv_cache_dtype", (*_WHOLE_KV, "fp8_ds_mla")),
            Either(
                (
                    equals("engine.kv_scales", True),
                    equals("model.kv_scales", True),
                    Other("engine.kv_cache_dtype", (*_WHOLE_KV, *_UNSCALED_KV)),
                )
            ),
        ),
        why="The engine's keys and values have fewer bits than the trainer's: tokens differ from "
        "the first one that attends to the cache, in FlashAttention 3 from position 97 on.",
        remedy="Leave kv_cache_dtype on auto, or correct with importance weights and watch them.",
        source="https://github.com/vllm-project/vllm/issues/54035",
        cause="fp8_kv_tile",
    ),
    Rule(
        name="state-dtype-overridden",
        severity="warning",
        when=(
            Unlike("engine.state_dtype", "model.state_dtype"),
            Other("engine.state_dtype", ("auto",)),
        ),
        why="The engine keeps the recurrent state in another dtype than the model's config names.",
        remedy="Leave mamba_ssm_cache_dtype out.",
        source="https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/model_executor/models/"
        "config.py",
        cause=None,
    ),
    Rule(
        name="state-half-precision",
        severity="warning",
        when=(
            OneOf("engine.state_dtype", ("bf16", "fp16")),
            equals("model.state_layers", True),
            Unsaid("model.state_dtype"),
        ),
        why="The recurrent state is rounded to 16 bits after every token or chunk: where chunks "
        "begin changes the result, and rounding adds up along the sequence.",
        remedy="Set mamba_ssm_cache_dtype to float32.",
        source="https://github.com/vllm-project/vllm/issues/42259",
        cause=None,
    ),
    Rule(
        name="state-rounded-at-random",
        severity="warning",
        when=(equals("engine.state_rounded_at_random", True),),
        why="The recurrent state is rounded at random: the same request gives other "
        "log-probabilities each time.",
        remedy="Leave enable_mamba_cache_stochastic_rounding out, and keep the state in float32.",
        source="https://docs.vllm.ai/en/v0.32.0/configuration/engine_args/",
        cause=None,
    ),
    Rule(
        name="chunks-through-a-state",
        severity="note",
        when=(
            Known("engine.max_batched_tokens"),
            MoreThan("engine.max_length", "engine.max_batched_tokens"),
            equals("model.state_layers", True),
            Unless(equals("engine.chunked_prefill", False)),
        ),
        why="Prompts longer than max_num_batched_tokens are cut into chunks, across which a "
        "hybrid model carries its state: errors there begin at the first generated token.",
        remedy="Raise max_num_batched_tokens to the longest prompt, at least for a comparison.",
        source="https://github.com/AI-Hypercomputer/maxtext/pull/4770",
        cause="chunked_prompt_logprobs",
    ),
    Rule(
        name="sleep-with-fp8-cache",
        severity="warning",
        when=(
            OneOf("engine.kv_cache_dtype", _UNSCALED_KV),
            equals("engine.sleep_mode", True),
            Unless(
                Either((Since("engine.version", _BUFFERS), Since("environment.vllm", _BUFFERS)))
            ),
        ),
        why="Sleep of level 2 lost the scales of the FP8 cache, and later versions set them to 1 "
        "at wake-up: output is right until the first sleep and wrong after it.",
        remedy="Install vLLM 0.29 or later, or leave kv_cache_dtype on auto.",
        source="https://github.com/vllm-project/vllm/pull/28783",
        cause="sleep_wake_corruption",
    ),
    Rule(
        name="sleep-with-adapter",
        severity="warning",
        when=(equals("engine.sleep_mode", True), equals("engine.lora", True)),
        why="After sleep and wake-up an adapter was found to apply no more: answers are those of "
        "the base model, and no error is raised.",
        remedy="Load the adapter again after each wake-up, and compare a greedy answer.",
        source="https://github.com/vllm-project/vllm/issues/53888",
        cause="sleep_wake_corruption",
    ),
    Rule(
        name="sleep-with-state",
        severity="warning",
        when=(equals("engine.sleep_mode", True), equals("model.state_layers", True)),
        why="Sleep frees the pages of recurrent states, and what they hold after wake-up is "
        "undefined until they are written.",
        remedy="Compare log-probabilities before and after one sleep for this model.",
        source="https://github.com/vllm-project/vllm/issues/48310",
        cause="sleep_wake_corruption",
    ),
    Rule(
        name="prefix-cache-across-updates",
        severity="note",
        when=(
            equals("environment.dev_mode", True),
            equals("engine.name", "vllm"),
            Unless(equals("engine.prefix_caching", False)),
        ),
        why="Weights can be replaced over HTTP, which leaves the prefix cache as it is: repeated "
        "prompts go on with keys and values of the older weights.",
        remedy="Call /reset_prefix_cache after each update (or pause with clear_cache), or start "
        "with --no-enable-prefix-caching.",
        source="https://github.com/PrimeIntellect-ai/prime-rl/pull/1650",
        cause="stale_prefix_cache",
    ),
)
