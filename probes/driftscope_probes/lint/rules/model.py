"""Rules of a model's folder: what in its files two readers take differently, or only one applies.

In: nothing. Out: RULES. Published folders are as a rule healthy: what fires on a folder alone has
to be a fault of this one, and the rest needs a second condition on the engine, trainer or host.
"""

from __future__ import annotations

from typing import Final

from driftscope_probes.lint.base import Rule
from driftscope_probes.lint.conditions import (
    Apart,
    Before,
    Between,
    Contains,
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

#: Families whose published checkpoints all have another rotary base than the default of the code.
_OTHER_BASE: Final = ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe")
#: transformers 5 writes a base into every config that has one.
_ROTARY: Final = ("llama", "mistral", "mixtral", "phi3", "gemma2", "gemma3_text", "olmo2", "glm4")
#: What transformers and vLLM take where a config says nothing.
DEFAULT_BASE: Final = 10_000
_ONE_SIDE: Final = Either((Known("engine.name"), Known("trainer.framework")))

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        name="rope-base-twice",
        severity="error",
        when=(Unlike("model.rope_theta_inside", "model.rope_theta_outside"),),
        why="The config has two bases of the rotary embedding: transformers 5 and vLLM take the "
        "one in rope_parameters, code written for transformers 4 takes rope_theta.",
        remedy="Keep the base that the weights were trained with, and write it in both places.",
        source="https://github.com/InternLM/lmdeploy/issues/4303",
        cause="rope_parameters_dropped",
    ),
    Rule(
        name="rope-base-missing",
        severity="warning",
        when=(
            OneOf("model.type", (*_OTHER_BASE, *_ROTARY)),
            Unsaid("model.rope_theta"),
            Either((OneOf("model.type", _OTHER_BASE), Since("model.transformers_version", (5,)))),
        ),
        why="The config names no base of the rotary embedding, so that 10,000 is taken; a "
        "conversion that knew only the old or only the new name has dropped it.",
        remedy="Copy rope_theta or rope_parameters from the original model's config.json.",
        source="https://github.com/NovaSky-AI/SkyRL/issues/690",
        cause="rope_parameters_dropped",
    ),
    Rule(
        name="rope-base-new-name",
        severity="error",
        when=(
            Other("model.rope_theta_inside", (DEFAULT_BASE, float(DEFAULT_BASE))),
            Unsaid("model.rope_theta_outside"),
            Before("environment.transformers", (5,)),
        ),
        why="The base of the rotary embedding stands in rope_parameters alone, which this "
        "transformers does not read: it computes with 10,000, and the gap grows with position.",
        remedy="Install transformers 5 or later, or add rope_theta and rope_scaling at the top.",
        source="https://github.com/InternLM/lmdeploy/issues/4303",
        cause="rope_parameters_dropped",
    ),
    Rule(
        name="rope-overridden-in-the-engine",
        severity="warning",
        when=(equals("engine.overrides_rope", True),),
        why="The engine stretches or changes the rotary embedding by an argument, which a trainer "
        "that reads the model's config.json does not see.",
        remedy="Write the same rope_parameters into the config.json that both sides read.",
        source="https://docs.vllm.ai/en/v0.32.0/configuration/engine_args/",
        cause="rope_config",
    ),
    Rule(
        name="longrope-by-engine-length",
        severity="warning",
        when=(
            OneOf("model.rope_type", ("longrope", "su")),
            MoreThan("engine.max_length", "model.trained_positions"),
        ),
        why="vLLM takes LongRoPE's long factors for every request as soon as its maximum length "
        "exceeds the trained one; transformers takes the short ones for each shorter sequence.",
        remedy="Set max_model_len to original_max_position_embeddings, or train on longer "
        "sequences only.",
        source="https://github.com/vllm-project/vllm/pull/27431",
        cause="rope_config",
    ),
    Rule(
        name="router-bias-rounded",
        severity="error",
        when=(OneOf("model.router_bias_dtype", ("bf16", "fp16")),),
        why="The bias that chooses experts is stored in 16 bits: values of several experts "
        "coincide, and most tokens take another set of experts than with the FP32 bias.",
        remedy="Export e_score_correction_bias in FP32, and keep it out of any cast of the model.",
        source="https://github.com/sgl-project/sglang/pull/37133",
        cause="moe_routing_flip",
    ),
    Rule(
        name="router-half-precision",
        severity="warning",
        when=(
            OneOf("model.router_dtype", ("bf16", "fp16")),
            Between("model.experts", low=1),
        ),
        why="The router computes in 16 bits: nearly equal logits tie or swap, and each swap sends "
        "the token through other weights.",
        remedy="Compute the router in FP32 on both sides.",
        source="https://github.com/vllm-project/vllm/pull/58076",
        cause="moe_routing_flip",
    ),
    Rule(
        name="router-jitter",
        severity="warning",
        when=(Between("model.router_jitter", low=0), Between("model.experts", low=1)),
        why="In training mode the router's input is multiplied by noise, which the engine does "
        "not apply: the two sides choose other experts.",
        remedy="Set router_jitter_noise to 0, or score in evaluation mode.",
        source="https://github.com/huggingface/transformers/blob/v5.19.0/src/transformers/models/"
        "mixtral/modeling_mixtral.py",
        cause="dropout_active",
    ),
    Rule(
        name="dropout-in-training",
        severity="warning",
        when=(
            Between("model.dropout", low=0),
            Unless(equals("trainer.dropout_disabled", True)),
        ),
        why="The config has dropout, which is drawn in training mode and never in the engine: "
        "every token's log-probability on the trainer's side is random.",
        remedy="Set the rates to 0, or disable dropout in the trainer.",
        source="https://github.com/unslothai/unsloth-zoo/issues/832",
        cause="dropout_active",
    ),
    Rule(
        name="softcap-dropped-by-sdpa",
        severity="error",
        when=(equals("trainer.attention", "sdpa"), Known("model.attention_softcap")),
        why="PyTorch's scaled_dot_product_attention has no soft cap, and transformers leaves it "
        "out without a word: the trainer attends otherwise than the engine, which applies it.",
        remedy="Set attn_implementation to eager or flash_attention_2.",
        source="https://github.com/huggingface/transformers/issues/32877",
        cause="trainer_model_bug",
    ),
    Rule(
        name="head-missing",
        severity="error",
        when=(
            equals("model.head_stored", False),
            equals("model.tie_word_embeddings", False),
            Contains("model.architecture", ("forcausallm",)),
        ),
        why="The config says that the output head is not the embedding, and the weights have no "
        "head: transformers draws one at random, and vLLM ties it or leaves it as allocated.",
        remedy="Save the head, or set tie_word_embeddings to true if the model was trained tied.",
        source="https://github.com/vllm-project/vllm/pull/51665",
        cause=None,
    ),
    Rule(
        name="end-tokens-apart",
        severity="warning",
        when=(Apart("defaults.eos", "model.eos"),),
        why="generation_config.json and config.json name end-of-sequence tokens that have none in "
        "common: the engine stops at one, and the trainer masks after the other.",
        remedy="Name the same tokens in both files.",
        source="https://github.com/huggingface/open-r1/pull/663",
        cause="mask_contamination",
    ),
    Rule(
        name="sparse-attention-index",
        severity="note",
        when=(Between("model.sparse_attention", low=0), _ONE_SIDE),
        why="An indexer picks the tokens that are attended: beyond that many tokens a near tie "
        "is decided otherwise on each side, and single tokens move by nats, as with experts.",
        remedy="Compare contexts shorter than index_topk apart, and replay the engine's choice.",
        source="https://github.com/vllm-project/vllm/issues/48305",
        cause="moe_routing_flip",
    ),
    Rule(
        name="adapter-not-loaded-by-vllm",
        severity="error",
        when=(
            Either(
                (
                    equals("model.adapter_dora", True),
                    equals("model.adapter_modules_saved", True),
                    OneOf("model.adapter_bias", ("all", "lora_only")),
                )
            ),
            equals("engine.lora", True),
        ),
        why="vLLM does not apply DoRA, trained biases or whole modules that an adapter replaces.",
        remedy="Merge the adapter into the weights, or train plain LoRA.",
        source="https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/lora/peft_helper.py",
        cause="lora_not_applied",
    ),
    Rule(
        name="adapter-of-the-head",
        severity="warning",
        when=(equals("model.adapter_targets_head", True),),
        why="The adapter changes lm_head or the embedding, which engines leave out of "
        "log-probabilities of prompts: those differ by nats from the ones of generated tokens.",
        remedy="Merge the adapter, or leave lm_head and embed_tokens out of target_modules.",
        source="https://github.com/vllm-project/vllm/issues/51594",
        cause="lora_not_applied",
    ),
    Rule(
        name="adapter-without-effect",
        severity="error",
        when=(
            Between("model.adapter_rank", low=0),
            OneOf("model.adapter_alpha", (0, 0.0)),
        ),
        why="lora_alpha is 0: the adapter is multiplied by 0 wherever it is applied.",
        remedy="Write the alpha that the adapter was trained with.",
        source="https://github.com/verl-project/verl/issues/6380",
        cause="lora_not_applied",
    ),
    Rule(
        name="adapter-dropout",
        severity="warning",
        when=(
            Between("model.adapter_dropout", low=0),
            Unless(equals("trainer.dropout_disabled", True)),
        ),
        why="lora_dropout is drawn in training mode and never in the engine.",
        remedy="Set lora_dropout to 0, or score in evaluation mode.",
        source="https://github.com/unslothai/unsloth-zoo/issues/832",
        cause="dropout_active",
    ),
)
