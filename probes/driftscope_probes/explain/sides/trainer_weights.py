"""What the ops of a live transformers model compute with, read from the modules that compute.

In: a causal language model, a site. Out: its weights and numbers. A number that its modules hold is
taken from there; what the forward pass reads from the config (window, soft cap) from the config.
"""

from __future__ import annotations

from typing import Any, Final

from torch import Tensor, nn

from driftscope_kernels.compare_ops.parameters import (
    ActivationParameters,
    AttentionParameters,
    EmbeddingParameters,
    ExpertsParameters,
    LinearParameters,
    LogprobParameters,
    NormParameters,
    Parameters,
    RotaryParameters,
    TopKParameters,
)
from driftscope_probes.explain.sides.activation_name import activation_name
from driftscope_probes.explain.sides.module_names import module_at, trainer_where
from driftscope_probes.explain.sites import Site

#: transformers hands the soft cap of the scores to every implementation; SDPA drops it.
_CAPS_SCORES: Final = ("eager", "flex_attention", "flash_attention_2", "flash_attention_3")


def trainer_parameters(model: nn.Module, site: Site) -> Parameters | None:
    """None where the architecture or the op is not known."""
    where = trainer_where(model, site)
    module = None if where is None else module_at(model, where.path)
    if module is None:
        return None
    match site.kind:
        case "norm" | "residual_norm":
            return _norm(module)
        case "linear" | "router":
            return _linear(module)
        case "embedding":
            return _embedding(module)
        case "rotary":
            return _rotary(module, model)
        case "attention":
            return _attention(module, model, site)
        case "activation":
            name = activation_name(module)
            return None if name is None else ActivationParameters(name)
        case "top_k":
            return TopKParameters(int(module.top_k), bool(module.norm_topk_prob))
        case "experts":
            return _experts(module)
        case "logprob":
            return _logprob(model)


def _norm(module: Any) -> NormParameters | None:
    epsilon = getattr(module, "variance_epsilon", None)
    epsilon = getattr(module, "eps", None) if epsilon is None else epsilon
    if epsilon is None:
        return None
    gemma = type(module).__name__.startswith("Gemma")
    return NormParameters(module.weight.detach(), float(epsilon), gemma)


def _linear(module: Any) -> LinearParameters | None:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        return None
    bias = getattr(module, "bias", None)
    return LinearParameters(weight.detach(), None if bias is None else bias.detach())


def _embedding(module: Any) -> EmbeddingParameters:
    weight: Tensor = module.weight.detach()
    scale = getattr(module, "embed_scale", None)
    # Gemma rounds it to the dtype of the embedding before it multiplies.
    return EmbeddingParameters(weight, 1.0 if scale is None else float(scale.to(weight.dtype)))


def _rotary(attention: Any, model: Any) -> RotaryParameters | None:
    tables = module_at(model, "model.rotary_emb")
    if tables is None:
        return None
    frequencies = tables.inv_freq.detach().float().cpu()
    return RotaryParameters(int(attention.head_dim), frequencies, float(tables.attention_scaling))


def _attention(module: Any, model: Any, site: Site) -> AttentionParameters:
    head_dim = int(module.head_dim)
    kernel = str(model.config._attn_implementation)
    softcap = getattr(module, "attn_logit_softcapping", None)
    return AttentionParameters(
        heads=_outputs(module.q_proj) // head_dim,
        kv_heads=_outputs(module.k_proj) // head_dim,
        head_dim=head_dim,
        scale=float(module.scaling),
        window=_window(model.config, site.layer),
        softcap=float(softcap) if softcap is not None and kernel in _CAPS_SCORES else None,
        kernel=kernel,
    )


def _outputs(linear: Any) -> int:
    return int(linear.weight.shape[0])


def _window(config: Any, layer: int | None) -> int | None:
    """As the model's forward pass makes its masks: by layer where the config says so."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None or layer is None or (kinds and kinds[layer] != "sliding_attention"):
        return None
    return int(window)


def _experts(module: Any) -> ExpertsParameters | None:
    gate_up, down = getattr(module, "gate_up_proj", None), getattr(module, "down_proj", None)
    name = activation_name(module.act_fn)
    if not isinstance(gate_up, Tensor) or not isinstance(down, Tensor) or name is None:
        return None
    return ExpertsParameters(gate_up.detach(), down.detach(), name)


def _logprob(model: Any) -> LogprobParameters:
    softcap = getattr(model.config, "final_logit_softcapping", None)
    return LogprobParameters(softcap=None if softcap is None else float(softcap))
