"""Files of a model's folder → model, defaults, tokenizer: config.json and those beside it.

In: the documents. Out: settings. What is found by more than one name ("num_experts",
"n_routed_experts") goes under one; of a model with images, the language model's part counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Final

from driftscope_probes.lint.base import Scalar, Setting, Settings
from driftscope_probes.lint.readers import values
from driftscope_probes.lint.readers.base import Document, Key, settings_at

#: Where the language model of a larger model has its part.
_INNER: Final = ("text_config", "llm_config", "language_config", "thinker_config")
_EXPERTS: Final = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
#: Keys that only models with a recurrent state have.
_STATE_KEYS: Final = (
    *("linear_num_value_heads", "linear_attn_config", "mamba_d_state", "ssm_state_size"),
    *("mamba_num_heads", "mamba_d_ssm", "state_size", "linear_conv_kernel_dim"),
)
_STATE_LAYERS: Final = ("linear_attention", "mamba", "recurrent", "gated_delta")
_DROPOUTS: Final = (
    *("attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop"),
    *("residual_dropout", "embedding_dropout", "hidden_dropout_prob", "dropout"),
)
TEMPLATE: Final = "chat_template.jinja"
GENERATION: Final = "generation_config.json"
_HEADS: Final = frozenset({"lm_head", "embed_tokens"})


def _first_architecture(value: Any) -> str | None:
    return values.text(value[0]) if isinstance(value, list) and value else None


def _ids(value: Any) -> str | None:
    """Token ids, ascending: "151643,151645"."""
    ids = value if isinstance(value, list) else [value]
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in ids):
        return None
    return ",".join(str(one) for one in sorted(set(ids))) or None


def _above_zero(value: Any) -> float | int | None:
    """0 and null both turn it off."""
    found = values.number(value)
    return found if found is not None and found > 0 else None


def _several(value: Any) -> int | None:
    """Of experts: one is none."""
    found = values.number(value)
    return int(found) if found is not None and 1 < found < 1e6 else None


def _token(value: Any) -> str | None:
    return values.text(value.get("content") if isinstance(value, Mapping) else value)


def _filled(value: Any) -> bool | None:
    """Of a template: a text, or a list of named ones."""
    return bool(value) if isinstance(value, str | list) else None


_CONFIG: Final[Mapping[str, Key]] = {
    "model_type": Key("model.type", values.word),
    "architectures": Key("model.architecture", _first_architecture),
    "torch_dtype": Key("model.dtype", values.dtype),
    "dtype": Key("model.dtype", values.dtype),
    "transformers_version": Key("model.transformers_version", values.word),
    "num_hidden_layers": Key("model.layers", values.number),
    "hidden_size": Key("model.hidden_size", values.number),
    "vocab_size": Key("model.vocab_size", values.number),
    "tie_word_embeddings": Key("model.tie_word_embeddings", values.switch),
    "max_position_embeddings": Key("model.max_positions", values.number),
    "original_max_position_embeddings": Key("model.trained_positions", values.number),
    **{name: Key("model.experts", _several) for name in _EXPERTS},
    "router_dtype": Key("model.router_dtype", values.dtype),
    "moe_router_dtype": Key("model.router_dtype", values.dtype),
    "router_jitter_noise": Key("model.router_jitter", _above_zero),
    "moe_router_use_sigmoid": Key("model.router_bias", values.switch),
    "mamba_ssm_dtype": Key("model.state_dtype", values.dtype),
    "mamba_ssm_cache_dtype": Key("model.state_dtype", values.dtype),
    "index_topk": Key("model.sparse_attention", _above_zero),
    "attn_logit_softcapping": Key("model.attention_softcap", _above_zero),
    "final_logit_softcapping": Key("model.logit_softcap", _above_zero),
    "eos_token_id": Key("model.eos", _ids),
    "bos_token_id": Key("model.bos", _ids),
    "pad_token_id": Key("model.pad", _ids),
    "num_nextn_predict_layers": Key("model.draft_layers", _above_zero),
    "mtp_num_hidden_layers": Key("model.draft_layers", _above_zero),
    "quantization_config.quant_method": Key("model.quantization", values.word),
    "quantization_config.quant_algo": Key("model.quantization", values.word),
}
_ADAPTER: Final[Mapping[str, Key]] = {
    "peft_type": Key("model.adapter", values.word),
    "r": Key("model.adapter_rank", values.number),
    "lora_alpha": Key("model.adapter_alpha", values.number),
    "lora_dropout": Key("model.adapter_dropout", _above_zero),
    "use_rslora": Key("model.adapter_rslora", values.switch),
    "use_dora": Key("model.adapter_dora", values.switch),
    "target_modules": Key("model.adapter_targets_head", lambda value: _names_a_head(value)),
    "modules_to_save": Key("model.adapter_modules_saved", values.there),
    "bias": Key("model.adapter_bias", values.word),
}
_DEFAULTS: Final[Mapping[str, Key]] = {
    **{
        name: Key(f"defaults.{name}", values.number)
        for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    },
    "max_new_tokens": Key("defaults.max_tokens", values.number),
    "eos_token_id": Key("defaults.eos", _ids),
}
_TOKENIZER: Final[Mapping[str, Key]] = {
    "chat_template": Key("tokenizer.chat_template", _filled),
    "padding_side": Key("tokenizer.padding_side", values.word),
    "add_bos_token": Key("tokenizer.add_bos", values.switch),
    "bos_token": Key("tokenizer.bos", _token),
    "eos_token": Key("tokenizer.eos", _token),
    "pad_token": Key("tokenizer.pad", _token),
    "clean_up_tokenization_spaces": Key("tokenizer.clean_up_spaces", values.switch),
}


def _names_a_head(value: Any) -> bool | None:
    if not isinstance(value, list):
        return None
    return any(isinstance(one, str) and one.rpartition(".")[2] in _HEADS for one in value)


class Config:
    reads = "a model's folder, or its config.json"

    def recognises(self, document: Document) -> bool:
        table = document.table
        return isinstance(table.get("model_type"), str) and (
            "architectures" in table
            or any(key in table for key in ("hidden_size", "vocab_size", *_INNER))
        )

    def read(self, document: Document) -> Settings:
        table = _language_model(document.table)
        inner = Document(document.name, document.text, table)
        return settings_at(inner, _CONFIG) + Settings(tuple(_derived(inner)))


def _language_model(table: Mapping[str, Any]) -> dict[str, Any]:
    """The outer keys, and over them those of the language model; the type stays the outer one."""
    inner: Mapping[str, Any] = next(
        (table[name] for name in _INNER if isinstance(table.get(name), dict)), {}
    )
    if isinstance(inner.get("text_config"), dict):  # thinker_config of Qwen-Omni
        inner = inner["text_config"]
    kept = {key: table[key] for key in ("model_type", "architectures") if key in table}
    # Published multimodal configs leave keys of the inner part null where the outer one says them.
    return {**table, **{key: one for key, one in inner.items() if one is not None}, **kept}


def _derived(document: Document) -> Iterator[Setting]:
    table = document.table

    def setting(name: str, value: Scalar, key: str) -> Setting:
        return Setting(name, value, document.where(key))

    yield from _rope(document)
    layer_types = table.get("layer_types")
    kinds = layer_types if isinstance(layer_types, list) else []
    state = next((key for key in _STATE_KEYS if table.get(key)), None)
    if state is None and any(word in str(kind) for kind in kinds for word in _STATE_LAYERS):
        state = "layer_types"
    if state is None and "M" in str(table.get("hybrid_override_pattern") or ""):
        state = "hybrid_override_pattern"
    if state is not None:
        yield setting("model.state_layers", True, state)
    window = values.number(table.get("sliding_window"))
    # Qwen2 and Qwen3 carry a window that use_sliding_window keeps off.
    used = table.get("use_sliding_window") is not False and "full_attention" not in _only(kinds)
    if window is not None and window > 0 and used:
        yield setting("model.sliding_window", window, "sliding_window")
    rates = {key: rate for key in _DROPOUTS if (rate := _above_zero(table.get(key))) is not None}
    if rates:
        largest = max(rates, key=lambda key: rates[key])
        yield setting("model.dropout", rates[largest], largest)
    quantised = table.get("quantization_config")
    if isinstance(quantised, dict) and quantised.get("kv_cache_scheme"):
        yield setting("model.kv_scales", True, "quantization_config.kv_cache_scheme")
    if table.get("topk_method") == "noaux_tc":
        yield setting("model.router_bias", True, "topk_method")


def _only(kinds: list[Any]) -> tuple[str, ...]:
    """The kind of all layers, if they are of one."""
    return tuple({str(kind) for kind in kinds}) if len({str(kind) for kind in kinds}) == 1 else ()


def _rope(document: Document) -> Iterator[Setting]:
    """rope_theta and rope_scaling until transformers 4; rope_parameters since 5."""
    table = document.table
    outer = values.number(table.get("rope_theta"))
    if outer is not None:
        yield Setting("model.rope_theta_outside", outer, document.where("rope_theta"))
    new = _of_full_attention(table.get("rope_parameters"))
    scaling = table.get("rope_scaling")
    old: Mapping[str, Any] = scaling if isinstance(scaling, dict) else {}
    inner = values.number(new.get("rope_theta"))
    if inner is not None:
        key = document.where("rope_parameters.rope_theta")
        yield Setting("model.rope_theta_inside", inner, key)
    theta = outer if inner is None else inner
    if theta is not None:
        yield Setting("model.rope_theta", theta, document.where("rope_theta"))
    for key, place in (("rope_parameters", new), ("rope_scaling", old)):
        kind = values.word(place.get("rope_type") or place.get("type"))
        if kind is not None:
            yield Setting("model.rope_type", kind, document.where(f"{key}.rope_type"))
            factor = values.number(place.get("factor"))
            if factor is not None:
                yield Setting("model.rope_factor", factor, document.where(f"{key}.factor"))
            trained = values.number(place.get("original_max_position_embeddings"))
            if trained is not None:
                at = document.where(f"{key}.original_max_position_embeddings")
                yield Setting("model.trained_positions", trained, at)
            return


def _of_full_attention(parameters: Any) -> Mapping[str, Any]:
    """Models with two kinds of layers have one set for each."""
    if not isinstance(parameters, dict):
        return {}
    nested = parameters.get("full_attention")
    return nested if isinstance(nested, dict) else parameters


class Generation:
    reads = "generation_config.json"

    def recognises(self, document: Document) -> bool:
        table = document.table
        ids = "eos_token_id" in table or "bos_token_id" in table or "pad_token_id" in table
        named = PurePath(document.name).name == GENERATION and any(
            key in table for key in _DEFAULTS
        )
        saved = table.get("_from_model_config") is True or ("transformers_version" in table and ids)
        return "model_type" not in table and (saved or named)

    def read(self, document: Document) -> Settings:
        return settings_at(document, _DEFAULTS)


class Tokenizer:
    reads = "tokenizer_config.json, or chat_template.jinja beside it"

    def recognises(self, document: Document) -> bool:
        table = document.table
        return (
            "tokenizer_class" in table
            or "added_tokens_decoder" in table
            or document.name.endswith(TEMPLATE)
        )

    def read(self, document: Document) -> Settings:
        if document.name.endswith(TEMPLATE):  # where transformers 5 keeps it
            there = Setting("tokenizer.chat_template", True, document.name)
            return Settings((there, *_of_template(document, document.text)))
        template = document.table.get("chat_template")
        return settings_at(document, _TOKENIZER) + Settings(
            tuple(_of_template(document, template)) if isinstance(template, str) else ()
        )


def _of_template(document: Document, template: str) -> Iterator[Setting]:
    where = document.where("chat_template")
    # The template splits earlier answers at </think> and keeps what follows.
    if "</think>" in template and ("split('</think>')" in template or "last_query" in template):
        yield Setting("tokenizer.strips_thinking", True, where)
    if template.lstrip("{-% \n").startswith("bos_token") or "{{- bos_token }}" in template:
        yield Setting("tokenizer.template_writes_bos", True, where)


class Adapter:
    reads = "adapter_config.json of PEFT"

    def recognises(self, document: Document) -> bool:
        return "peft_type" in document.table

    def read(self, document: Document) -> Settings:
        return settings_at(document, _ADAPTER)
