"""Which layers of a loaded model run our kernels, and which do not.

In: the model of a vLLM worker. Out: Coverage; `to_json` goes into a trace.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from driftscope_kernels.vllm_plugin import patches, rounding
from driftscope_kernels.vllm_plugin.install import OWN_MODE_VARIABLE
from driftscope_kernels.vllm_plugin.rounding import INVARIANT, STOCK, kernels_asked

#: Layers that only look up, copy or hold others; the last two are parts of a layer that counts.
NO_ARITHMETIC = frozenset(
    {
        *("Identity", "LogitsProcessor", "ModuleList", "VocabParallelEmbedding"),
        *("ApplyRotaryEmb", "UnquantizedFusedMoEMethod"),
    }
)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Number of layers by kind."""

    covered: dict[str, int]
    uncovered: dict[str, int]
    deferred_to: str | None = None  # another implementation that has the whole model
    rounding: str | None = None  # as `vllm_plugin.rounding` writes it; None where nothing is ours

    def to_json(self) -> dict[str, Any]:
        return {
            "kernels": INVARIANT if self.covered or self.deferred_to else STOCK,
            "covered": self.covered,
            "uncovered": self.uncovered,
            "deferred_to": self.deferred_to,
            "rounding": self.rounding,
        }


def coverage(model: torch.nn.Module) -> Coverage:
    """Counts of the model's layers; everything uncovered where the plugin is off."""
    if kernels_asked() == INVARIANT and not patches.installed():
        return Coverage({}, {}, f"vLLM's own batch-invariant mode, {OWN_MODE_VARIABLE}=1")
    covered: Counter[str] = Counter()
    uncovered: Counter[str] = Counter()
    for module in model.modules():
        kind, ours = _kind(module)
        if kind is not None:
            (covered if ours else uncovered)[kind] += 1
    if covered:
        covered["LogSoftmax"] = 1
    return Coverage(
        dict(sorted(covered.items())),
        dict(sorted(uncovered.items())),
        rounding=rounding.text_in_use() if covered else None,
    )


def of_model(model: torch.nn.Module) -> dict[str, Any]:
    """For LLM.apply_model, which calls it in the worker."""
    return coverage(model).to_json()


def _kind(module: torch.nn.Module) -> tuple[str | None, bool]:
    """The name of what the module computes, None if nothing; whether ours computes it."""
    from vllm.model_executor.layers.activation import SiluAndMul
    from vllm.model_executor.layers.attention import Attention
    from vllm.model_executor.layers.layernorm import RMSNorm
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding

    from driftscope_kernels.vllm_plugin.linear import KeptLinear, PackedLinear

    name, on = type(module).__name__, kernels_asked() == INVARIANT and patches.installed()
    if name in NO_ARITHMETIC:
        return None, False
    if hasattr(module, "cpu_linear"):
        kind = "lm_head" if name == "ParallelLMHead" else "Linear"
        return kind, isinstance(module.cpu_linear, PackedLinear | KeptLinear)
    if isinstance(module, RMSNorm):
        from driftscope_kernels.vllm_plugin.norm import covers

        return "RMSNorm", on and covers(module)
    if isinstance(module, SiluAndMul):
        return "SiluAndMul", on
    if isinstance(module, RotaryEmbedding):
        return "RotaryEmbedding", on and _is_ours(module, "rotary")
    if isinstance(module, Attention):
        return "Attention", on and type(module.impl).__module__.startswith("driftscope_kernels.")
    if hasattr(module, "w13_weight"):
        return "Experts", on and _experts_are_ours(module)
    return None if any(True for _ in module.children()) else name, False


def _is_ours(module: torch.nn.Module, file: str) -> bool:
    function = type(module).forward_cpu  # type: ignore[attr-defined]
    return str(function.__module__) == f"driftscope_kernels.vllm_plugin.{file}"


def _experts_are_ours(module: torch.nn.Module) -> bool:
    kernel = getattr(getattr(module, "quant_method", None), "moe_kernel", None)
    apply = getattr(type(getattr(kernel, "fused_experts", None)), "apply", None)
    return getattr(apply, "__module__", None) == "driftscope_kernels.vllm_plugin.experts"
