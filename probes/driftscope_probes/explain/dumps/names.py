"""What a module of Hugging Face, vLLM, SGLang or Megatron gives and gets, as places of ours.

In: a module's name and which of its inputs and outputs were captured. Out: a key for each that is
known; the rest is listed as uncovered.

Names are those of transformers 5.19, vLLM 0.32 and SGLang 0.5 (`model.layers.3.self_attn.…`) and
Megatron-Core (`decoder.layers.3.self_attention.…`); whatever stands before them (`module.`,
`_fsdp_wrapped_module.`, `model.language_model.`) is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from driftscope_probes.explain.dumps.base import (
    FACTS,
    GATE_UP,
    GROUPED_QKV,
    PACKED_NAMES,
    PLACE_NAMES,
    POSITIONS,
    QKV,
    TOKENS,
)

INPUT: Final = "inputs.0"
OUTPUT: Final = "output"
#: One of several tensors that a module gives: a fused norm gives the normed sum and the sum.
FIRST, SECOND, THIRD = "output.0", "output.1", "output.2"

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.+)$")
#: Of a layer: the end of a module's name -> what its inputs and outputs are. Norms are apart.
LAYER_MODULES: Final[Mapping[str, Mapping[str, str]]] = {
    "self_attn.q_proj": {OUTPUT: "q_proj"},
    "self_attn.k_proj": {OUTPUT: "k_proj"},
    "self_attn.v_proj": {OUTPUT: "v_proj"},
    "self_attn.qkv_proj": {OUTPUT: QKV},
    "self_attn.q_norm": {OUTPUT: "q_norm"},
    "self_attn.k_norm": {OUTPUT: "k_norm"},
    "self_attn.attn": {INPUT: "q_rotary", "inputs.1": "k_rotary", "inputs.2": "v_proj"},
    "self_attn.o_proj": {INPUT: "attention", OUTPUT: "o_proj"},
    "self_attention.linear_qkv": {OUTPUT: GROUPED_QKV},
    "self_attention.q_layernorm": {OUTPUT: "q_norm"},
    "self_attention.k_layernorm": {OUTPUT: "k_norm"},
    "self_attention.core_attention": {
        INPUT: "q_rotary",
        "inputs.1": "k_rotary",
        "inputs.2": "v_proj",
    },
    "self_attention.linear_proj": {INPUT: "attention", OUTPUT: "o_proj"},
    "mlp.gate_proj": {OUTPUT: "gate_proj"},
    "mlp.up_proj": {OUTPUT: "up_proj"},
    "mlp.gate_up_proj": {OUTPUT: GATE_UP},
    "mlp.down_proj": {INPUT: "activation", OUTPUT: "down_proj"},
    "mlp.linear_fc1": {OUTPUT: GATE_UP},
    "mlp.linear_fc2": {INPUT: "activation", OUTPUT: "down_proj"},
    "mlp.gate": {OUTPUT: "router", SECOND: "top_k_weights", THIRD: "top_k_experts"},
    "block_sparse_moe.gate": {OUTPUT: "router"},
    "mlp.router": {SECOND: "router"},
    "mlp.experts": {OUTPUT: "experts"},
    "block_sparse_moe.experts": {OUTPUT: "experts"},
}
#: Norms before attention and MLP read the residual stream: the end of a module's name -> the
#: stream, the normed tensor.
STREAM_NORMS: Final[Mapping[str, tuple[str, str]]] = {
    "input_layernorm": ("residual_in", "attention_norm"),
    "post_attention_layernorm": ("residual_mid", "mlp_norm"),
    "pre_mlp_layernorm": ("residual_mid", "mlp_norm"),
    "pre_feedforward_layernorm": ("residual_mid", "mlp_norm"),
}
#: Gemma norms what attention and MLP give before it is added.
GEMMA_MARK: Final = "pre_feedforward_layernorm"
OUTPUT_NORMS: Final[Mapping[str, str]] = {
    "post_attention_layernorm": "attention_output_norm",
    "post_feedforward_layernorm": "mlp_output_norm",
}
OUTER_MODULES: Final[Mapping[str, Mapping[str, str]]] = {
    "embed_tokens": {INPUT: TOKENS, OUTPUT: "embedding"},
    "word_embeddings": {INPUT: TOKENS, OUTPUT: "embedding"},
    "lm_head": {OUTPUT: "logits"},
    "output_layer": {OUTPUT: "logits"},
}
#: The norm behind the last layer; `norm` of a layer is none of these.
FINAL_NORMS: Final = frozenset({"norm", "final_layernorm"})


#: As forward methods name them.
ARGUMENTS: Final[Mapping[str, str]] = {"input_ids": TOKENS, "position_ids": POSITIONS}


def known_key(name: str) -> str | None:
    """The key itself where a tensor is named as ours are: `3.q_proj`, `tokens`."""
    if name in ARGUMENTS:
        return ARGUMENTS[name]
    layer, dot, tail = name.rpartition(".")
    if name in FACTS or (tail in PLACE_NAMES | PACKED_NAMES and (not dot or layer.isdecimal())):
        return name
    return None


def is_gemma(modules: Collection[str]) -> bool:
    """Whether attention's output is normed: then `post_attention_layernorm` is that norm."""
    return any(name.endswith(GEMMA_MARK) for name in modules)


def keys_of(module: str, ends: Collection[str], *, gemma: bool) -> dict[str, str]:
    """Key by end, for those of a module's captured inputs and outputs that are places."""
    inside = _LAYER.search(module)
    if inside is None:
        last = module.rpartition(".")[2]
        if last in FINAL_NORMS:
            return _stream_norm("residual_out", "final_norm", ends)
        return _matched(OUTER_MODULES.get(last, {}), ends)
    layer, tail = int(inside[1]), inside[2]
    if gemma and tail in OUTPUT_NORMS:
        found = _matched({OUTPUT: OUTPUT_NORMS[tail]}, ends)
    elif tail in STREAM_NORMS:
        found = _stream_norm(*STREAM_NORMS[tail], ends)
        if layer == 0:  # the stream before the first layer is the embedding
            found = {end: name for end, name in found.items() if name != "residual_in"}
    else:
        found = _matched(LAYER_MODULES.get(tail, {}), ends)
    return {end: f"{layer}.{name}" for end, name in found.items()}


def _matched(known: Mapping[str, str], ends: Collection[str]) -> dict[str, str]:
    found = {end: name for end, name in known.items() if end in ends}
    # A module may give one tensor or a tuple whose first is meant (vLLM: output and bias).
    if OUTPUT in known and FIRST in ends:
        found[FIRST] = known[OUTPUT]
    return found


def _stream_norm(stream: str, normed: str, ends: Collection[str]) -> dict[str, str]:
    found = _matched({OUTPUT: normed}, ends)
    if SECOND in ends:  # vLLM and SGLang add inside the norm and give the sum back
        found[SECOND] = stream
    elif INPUT in ends and "inputs.1" not in ends:
        found[INPUT] = stream
    return found
