"""What the ops of a live vLLM model compute with, read from the modules that compute.

In: the model of an engine (`llm.apply_model`), a site. Out: its weights and numbers. Nothing is
taken from the config where a module has it: an engine that runs with other numbers is to be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from driftscope_kernels.compare_ops.parameters import (
    ActivationName,
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
from driftscope_kernels.vllm_plugin import experts as plugin_experts
from driftscope_probes.explain.sides import packed_weights
from driftscope_probes.explain.sides.activation_name import activation_name
from driftscope_probes.explain.sides.module_names import Part, engine_where, module_at
from driftscope_probes.explain.sides.rotary_tables import frequencies_of
from driftscope_probes.explain.sites import Site


@dataclass
class Recovered:
    """The last merged weight that was recovered: q, k and v are asked for one after the other."""

    layer: Any = None
    weight: Tensor | None = field(default=None, repr=False)

    def of(self, layer: Any, width: int) -> Tensor:
        if self.layer is not layer or self.weight is None:
            self.layer, self.weight = None, None  # two at once would be too many
            self.weight = packed_weights.linear_weight(layer, width)
            self.layer = layer
        return self.weight


def engine_parameters(
    model: nn.Module, config: Any, site: Site, recovered: Recovered | None = None
) -> Parameters | None:
    """`config` is vLLM's VllmConfig. None where the architecture, the kind of layer (quantised) or
    the op is not known, and where this process has only a part of each weight.

    Whoever asks for all sites in order hands in one `Recovered`; it is stale after a reload.
    """
    where = engine_where(model, site)
    if where is None or config.parallel_config.world_size != 1:
        return None
    module = module_at(model, where.path)
    if site.name == "lm_head":
        module = module or _tied_head(model)
    if module is None:
        return None
    match site.kind:
        case "norm" | "residual_norm":
            return _norm(module)
        case "linear" | "router":
            return _linear(module, where.part, model, site, recovered or Recovered())
        case "embedding":
            return _embedding(module, model)
        case "rotary":
            return _rotary(module)
        case "attention":
            return _attention(module)
        case "activation":
            return _activation(module)
        case "top_k":
            return _top_k(module)
        case "experts":
            return _experts(module)
        case "logprob":
            return _logprob(model)


#: vLLM's names. `gelu` is the exact one.
_EXPERT_ACTIVATIONS: Final[Mapping[str, ActivationName]] = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_tanh",
}


def _tied_head(model: Any) -> Any:
    """Gemma has no head of its own in vLLM: it multiplies with its embedding."""
    return module_at(model, "model.embed_tokens")


def _norm(module: Any) -> NormParameters | None:
    kind = type(module).__name__
    if kind not in ("RMSNorm", "GemmaRMSNorm"):
        return None
    weight = module.weight.detach() if getattr(module, "has_weight", True) else None
    return NormParameters(weight, float(module.variance_epsilon), kind == "GemmaRMSNorm")


def _linear(
    module: Any, part: Part | None, model: Any, site: Site, recovered: Recovered
) -> LinearParameters | None:
    if not packed_weights.unquantised(module):
        return None
    width = getattr(module, "input_size", None) or module.embedding_dim
    weight = recovered.of(module, int(width))
    bias = getattr(module, "bias", None)
    bias = None if bias is None else bias.detach()
    if site.name == "lm_head":
        rows = slice(0, model.logits_processor.org_vocab_size)  # the rest is padding
    else:
        rows = _rows(module, part, len(weight))
    return LinearParameters(weight[rows], None if bias is None else bias[rows])


def _rows(module: Any, part: Part | None, total: int) -> slice:
    """Of a merged layer's outputs."""
    if part is None:
        return slice(0, total)
    if part in ("gate", "up"):
        half = total // 2
        return slice(0, half) if part == "gate" else slice(half, total)
    queries = module.num_heads * module.head_size
    keys = module.num_kv_heads * module.head_size
    starts = {"q": 0, "k": queries, "v": queries + keys}
    return slice(starts[part], starts[part] + (queries if part == "q" else keys))


def _embedding(module: Any, model: Any) -> EmbeddingParameters:
    normaliser = getattr(model.model, "normalizer", None)
    scale = 1.0 if normaliser is None else float(normaliser)
    return EmbeddingParameters(module.weight.detach()[: module.org_vocab_size], scale)


def _rotary(module: Any) -> RotaryParameters | None:
    table = getattr(module, "cos_sin_cache", None)
    if table is None or table.dim() != 2:
        return None
    frequencies, scaling = frequencies_of(table, _declared(module))
    interleaved = not module.is_neox_style
    return RotaryParameters(int(module.head_size), frequencies, scaling, interleaved)


def _declared(module: Any) -> Tensor:
    """As the module would compute them now: float32 to the last bit, which no table gives."""
    factor = getattr(module, "scaling_factor", None)
    if type(module).__name__ == "YaRNScalingRotaryEmbedding":
        frequencies: Tensor = module._compute_inv_freq(factor)
    else:
        frequencies = module._compute_inv_freq(module.base)
    return frequencies.float().cpu()


def _attention(module: Any) -> AttentionParameters:
    implementation = module.impl
    window = getattr(implementation, "sliding_window", None)
    # The implementations for GPUs keep (keys before, keys after).
    window = window[0] + 1 if isinstance(window, tuple) else window
    softcap = getattr(implementation, "logits_soft_cap", None)
    return AttentionParameters(
        heads=int(implementation.num_heads),
        kv_heads=int(implementation.num_kv_heads),
        head_dim=int(implementation.head_size),
        scale=float(implementation.scale),
        window=int(window) if window is not None and window > 0 else None,
        softcap=float(softcap) if softcap else None,
        kernel=module.attn_backend.get_name(),
    )


def _activation(module: Any) -> ActivationParameters | None:
    def alone(x: Tensor) -> Tensor:
        y: Tensor = module(torch.cat([x, torch.ones_like(x)], dim=-1))
        return y

    name = activation_name(alone)
    return None if name is None else ActivationParameters(name)


def _top_k(module: Any) -> TopKParameters | None:
    router = module.router
    if getattr(router, "use_grouped_topk", False) or router.scoring_func != "softmax":
        return None
    bias = getattr(router, "e_score_correction_bias", None)
    return TopKParameters(int(router.top_k), bool(router.renormalize), bias)


def _experts(module: Any) -> ExpertsParameters | None:
    experts = module.routed_experts
    name = _EXPERT_ACTIVATIONS.get(experts.activation.value)
    gate_up, down = (_expert_weight(experts, name) for name in ("w13_weight", "w2_weight"))
    if name is None or gate_up is None or down is None:
        return None
    # The kernel for CPUs wants multiples of 32, and vLLM fills up with zeros.
    width, padded = experts.moe_config.intermediate_size_per_partition, gate_up.shape[1] // 2
    if padded != width:
        halves = [gate_up[:, :width], gate_up[:, padded : padded + width]]
        gate_up, down = torch.cat(halves, dim=1), down[:, :, :width]
    return ExpertsParameters(gate_up, down, name)


def _expert_weight(experts: Any, name: str) -> Tensor | None:
    weight: Tensor = getattr(experts, name).detach()
    kernel = getattr(experts.quant_method, "moe_kernel", None)
    implementation = getattr(getattr(kernel, "impl", None), "fused_experts", None)
    if implementation is None:
        return None
    kind = type(implementation)
    if kind.__name__ == "TritonExperts" or kind.process_weights_after_loading.__module__ == (
        plugin_experts.__name__
    ):
        return weight  # as loaded
    isa = getattr(implementation, "isa", None)
    return None if isa is None else packed_weights.expert_weight(weight, isa)


def _logprob(model: Any) -> LogprobParameters | None:
    processor = model.logits_processor
    if processor.scale != 1.0:
        return None
    return LogprobParameters(softcap=processor.soft_cap)
