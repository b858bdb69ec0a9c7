"""What an op of a dump computes with: its weights where the dump holds them, numbers of its config.

In: a dump and a site. Out: Parameters, or None where a weight or a number is not there, or where
the model is of a kind whose numbers are not in its config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import (
    ActivationName,
    ActivationParameters,
    AttentionParameters,
    EmbeddingParameters,
    LinearParameters,
    NormParameters,
    Parameters,
    RotaryParameters,
)
from driftscope_probes.explain.dumps.packed import Widths, size
from driftscope_probes.explain.dumps.rows import Dump
from driftscope_probes.explain.sites import Site

_PLAIN_MODELS: Final = frozenset({"llama", "qwen2", "qwen3", "mistral", "qwen3_moe", "mixtral"})
_ACTIVATIONS: Final[Mapping[str, ActivationName]] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
#: By name of the op: the module that holds its weight.
_MODULES: Final[Mapping[str, str]] = {
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    **{name: f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")},
    **{name: f"self_attn.{name}" for name in ("q_norm", "k_norm")},
    **{name: f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")},
}


@dataclass(frozen=True, slots=True)
class DumpParameters:
    """`weights` and `config` may be of two dumps: the other's where one has none."""

    weights: Dump
    config: Mapping[str, Any]

    def of(self, site: Site, inputs: Mapping[str, int], outputs: int) -> Parameters | None:
        """`inputs`, `outputs`: features, which the weights have to fit."""
        if self.config.get("model_type") not in _PLAIN_MODELS:
            return None
        head_dim = Widths.of(self.config, {}).head_dim
        heads = size(self.config, "num_attention_heads")
        if site.kind in ("norm", "residual_norm"):
            return self._norm(site, outputs, head_dim)
        if site.kind == "linear":
            return self._linear(site, inputs["x"], outputs)
        if site.kind == "rotary":
            whole = head_dim and not any(width % head_dim for width in inputs.values())
            return self._rotary(head_dim) if whole and head_dim else None
        if site.kind == "activation":
            name = _ACTIVATIONS.get(str(self.config.get("hidden_act")))
            return None if name is None else ActivationParameters(name)
        if site.kind == "embedding":
            weight = self.weights.weight("embed_tokens.weight")
            fits = weight is not None and weight.ndim == 2 and weight.shape[1] == outputs
            return EmbeddingParameters(weight) if fits and weight is not None else None
        if site.kind == "attention" and heads and head_dim:
            kv_heads = size(self.config, "num_key_value_heads") or heads
            if (inputs["q"], inputs["k"]) != (heads * head_dim, kv_heads * head_dim):
                return None
            window = size(self.config, "sliding_window")
            scale = head_dim**-0.5
            return AttentionParameters(heads, kv_heads, head_dim, scale, window)
        return None

    def _norm(self, site: Site, width: int, head_dim: int | None) -> NormParameters | None:
        weight, epsilon = self._weight(site, "weight"), self.config.get("rms_norm_eps")
        if weight is None or not isinstance(epsilon, float):
            return None
        fits = tuple(weight.shape) in ((width,), (head_dim,))
        return NormParameters(weight, epsilon) if fits else None

    def _linear(self, site: Site, inputs: int, outputs: int) -> LinearParameters | None:
        weight, bias = self._weight(site, "weight"), self._weight(site, "bias")
        if weight is None or tuple(weight.shape) != (outputs, inputs):
            return None
        if bias is not None and tuple(bias.shape) != (outputs,):
            return None
        return LinearParameters(weight, bias)

    def _rotary(self, head_dim: int) -> RotaryParameters | None:
        told = self.config.get("rope_parameters") or self.config
        kind = told.get("rope_type", "default") if isinstance(told, dict) else None
        base = told.get("rope_theta") if isinstance(told, dict) else None
        if (
            kind != "default"
            or self.config.get("rope_scaling")
            or not isinstance(base, int | float)
        ):
            return None
        exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
        return RotaryParameters(head_dim, 1.0 / (base**exponents))

    def _weight(self, site: Site, part: str) -> Tensor | None:
        if site.name == "final_norm":
            return self.weights.weight(f"model.norm.{part}")
        if site.name == "lm_head":
            return self.weights.weight(f"lm_head.{part}")
        if site.layer is None or site.name not in _MODULES:
            return None
        module = f"layers.{site.layer}.{_MODULES[site.name]}"
        own = self.weights.weight(f"{module}.{part}")
        return self._packed(module, part) if own is None else own

    def _packed(self, module: str, part: str) -> Tensor | None:
        """Rows of vLLM's qkv_proj or gate_up_proj."""
        above, _, own = module.rpartition(".")
        if own in ("gate_proj", "up_proj"):
            both = self.weights.weight(f"{above}.gate_up_proj.{part}")
            return None if both is None else both.chunk(2)[own == "up_proj"]
        if own in ("q_proj", "k_proj", "v_proj"):
            packed = self.weights.weight(f"{above}.qkv_proj.{part}")
            widths = Widths.of(self.config, {})
            if packed is None or not widths.q or not widths.kv:
                return None
            if len(packed) != widths.q + 2 * widths.kv:
                return None
            bounds = {
                "q_proj": (0, widths.q),
                "k_proj": (widths.q, widths.q + widths.kv),
                "v_proj": (widths.q + widths.kv, len(packed)),
            }
            start, end = bounds[own]
            return packed[start:end]
        return None
