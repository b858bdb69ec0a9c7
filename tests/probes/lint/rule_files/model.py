"""Rules of a model's folder: what trips them, what does not."""

from __future__ import annotations

import json

from ..recipes import trl
from .row import Row, config, experts, serve, weights

_NEW = {"rope_parameters": {"rope_theta": 500_000, "rope_type": "default"}}
_LONG = {
    "rope_scaling": {"type": "longrope", "long_factor": [1.0], "short_factor": [1.0]},
    "original_max_position_embeddings": 4096,
    "max_position_embeddings": 131_072,
}


def _adapter(**more: object) -> dict[str, str]:
    table = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], **more}
    return {"adapter/adapter_config.json": json.dumps(table)}


def _generation(**more: object) -> dict[str, str]:
    return {
        "model/generation_config.json": json.dumps(
            {"transformers_version": "4.51.0", "bos_token_id": 5, **more}
        )
    }


ROWS: tuple[Row, ...] = (
    Row("rope-base-twice", config(**_NEW), config(rope_theta=500_000, **_NEW)),
    Row("rope-base-missing", config(rope_theta=None), config(rope_theta=None, **_NEW)),
    Row(
        "rope-base-new-name",
        {**config(rope_theta=None, **_NEW), "pins.txt": "transformers==4.57.1\n"},
        {**config(rope_theta=None, **_NEW), "pins.txt": "transformers==5.19.0\n"},
    ),
    Row(
        "rope-overridden-in-the-engine",
        serve("""--hf-overrides '{"rope_parameters": {"rope_type": "yarn", "factor": 4}}'"""),
        serve("""--hf-overrides '{"architectures": ["Qwen3ForCausalLM"]}'"""),
    ),
    Row(
        "longrope-by-engine-length",
        {**config(model_type="phi3", **_LONG), **serve("--max-model-len 16384")},
        {**config(model_type="phi3", **_LONG), **serve("--max-model-len 4096")},
    ),
    Row(
        "router-bias-rounded",
        {**experts(), **weights(e_score_correction_bias="BF16")},
        {**experts(), **weights(e_score_correction_bias="F32")},
    ),
    Row(
        "router-half-precision",
        experts(moe_router_dtype="bfloat16"),
        experts(moe_router_dtype="fp32"),
    ),
    Row("router-jitter", experts(router_jitter_noise=0.01), experts(router_jitter_noise=0.0)),
    Row("dropout-in-training", config(attn_pdrop=0.1), config(attention_dropout=0.0)),
    Row(
        "softcap-dropped-by-sdpa",
        {**config(attn_logit_softcapping=50.0), **trl(attn_implementation="sdpa")},
        {**config(attn_logit_softcapping=50.0), **trl(attn_implementation="eager")},
    ),
    Row(
        "head-missing",
        {**config(), **weights(**{"model.embed_tokens.weight": "BF16"})},
        {**config(tie_word_embeddings=True), **weights(**{"model.embed_tokens.weight": "BF16"})},
    ),
    Row(
        "end-tokens-apart",
        {**config(eos_token_id=2), **_generation(eos_token_id=[7, 8])},
        {**config(eos_token_id=2), **_generation(eos_token_id=[2, 7])},
    ),
    Row(
        "sparse-attention-index",
        {**experts(index_topk=2048), **serve()},
        {**experts(index_topk=None), **serve()},
    ),
    Row(
        "adapter-not-loaded-by-vllm",
        {**_adapter(use_dora=True), **serve("--enable-lora")},
        {**_adapter(use_dora=False), **serve("--enable-lora")},
    ),
    Row(
        "adapter-of-the-head",
        _adapter(target_modules=["q_proj", "lm_head"]),
        _adapter(target_modules=["q_proj", "v_proj"]),
    ),
    Row("adapter-without-effect", _adapter(lora_alpha=0), _adapter(lora_alpha=8)),
    Row("adapter-dropout", _adapter(lora_dropout=0.05), _adapter(lora_dropout=0.0)),
)
