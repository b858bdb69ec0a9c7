"""Where a decoder's modules are, by architecture, in vLLM and in transformers. Free of torch.

In: a model and the name of an op. Out: the module that computes it, and which part of a module
that computes several at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from driftscope_probes.explain.sites import Site

Part = Literal["q", "k", "v", "gate", "up"]


@dataclass(frozen=True, slots=True)
class Where:
    """A module, by its path below the decoder layer or, outside layers, below the model."""

    path: str
    part: Part | None = None  # None: the whole of it


_OUTSIDE: Final[dict[str, Where]] = {
    "embedding": Where("model.embed_tokens"),
    "final_norm": Where("model.norm"),
    "lm_head": Where("lm_head"),
    "logprob": Where(""),
}
_TWO_NORMS: Final[dict[str, Where]] = {
    "attention_norm": Where("input_layernorm"),
    "mlp_norm": Where("post_attention_layernorm"),
}
#: Gemma 2 norms what attention and MLP give, too; the name in the middle moves.
_FOUR_NORMS: Final[dict[str, Where]] = {
    "attention_norm": Where("input_layernorm"),
    "attention_output_norm": Where("post_attention_layernorm"),
    "mlp_norm": Where("pre_feedforward_layernorm"),
    "mlp_output_norm": Where("post_feedforward_layernorm"),
}
_HEAD_NORMS: Final[dict[str, Where]] = {
    "q_norm": Where("self_attn.q_norm"),
    "k_norm": Where("self_attn.k_norm"),
}
_SHARED: Final[dict[str, Where]] = {
    "o_proj": Where("self_attn.o_proj"),
    "activation": Where("mlp.act_fn"),
    "down_proj": Where("mlp.down_proj"),
    "router": Where("mlp.gate"),
    "experts": Where("mlp.experts"),
}
_ENGINE: Final[dict[str, Where]] = _SHARED | {
    "q_proj": Where("self_attn.qkv_proj", "q"),
    "k_proj": Where("self_attn.qkv_proj", "k"),
    "v_proj": Where("self_attn.qkv_proj", "v"),
    "rotary": Where("self_attn.rotary_emb"),
    "attention": Where("self_attn.attn"),
    "gate_proj": Where("mlp.gate_up_proj", "gate"),
    "up_proj": Where("mlp.gate_up_proj", "up"),
    "top_k": Where("mlp.experts"),
}
_TRAINER: Final[dict[str, Where]] = _SHARED | {
    "q_proj": Where("self_attn.q_proj"),
    "k_proj": Where("self_attn.k_proj"),
    "v_proj": Where("self_attn.v_proj"),
    "rotary": Where("self_attn"),  # the tables are the model's, the head's width the layer's
    "attention": Where("self_attn"),
    "gate_proj": Where("mlp.gate_proj"),
    "up_proj": Where("mlp.up_proj"),
    "top_k": Where("mlp.gate"),
}
#: By class of the model, which has the same name in both. Others are not known.
_NORMS: Final[Mapping[str, Mapping[str, Where]]] = {
    "LlamaForCausalLM": _TWO_NORMS,
    "MistralForCausalLM": _TWO_NORMS,
    "Qwen2ForCausalLM": _TWO_NORMS,
    "Qwen3ForCausalLM": _TWO_NORMS | _HEAD_NORMS,
    "Qwen3MoeForCausalLM": _TWO_NORMS | _HEAD_NORMS,
    "GemmaForCausalLM": _TWO_NORMS,
    "Gemma2ForCausalLM": _FOUR_NORMS,
}


def engine_where(model: Any, site: Site) -> Where | None:
    """None for an architecture or an op that is not known."""
    return _where(_ENGINE, model, site)


def trainer_where(model: Any, site: Site) -> Where | None:
    """None for an architecture or an op that is not known."""
    return _where(_TRAINER, model, site)


def _where(ops: Mapping[str, Where], model: Any, site: Site) -> Where | None:
    norms = _NORMS.get(type(model).__name__)
    if norms is None:
        return None
    if site.layer is None:
        return _OUTSIDE.get(site.name)
    found = norms.get(site.name) or ops.get(site.name)
    if found is None:
        return None
    return Where(f"model.layers.{site.layer}.{found.path}", found.part)


def module_at(model: Any, path: str) -> Any | None:
    """None where the model has no such module: a dense layer has no router."""
    found = model
    for name in path.split(".") if path else ():
        found = getattr(found, name, None)
        if found is None:
            return None
    return found
