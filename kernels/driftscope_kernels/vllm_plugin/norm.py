"""vLLM's RMSNorm, alone and with the residual added, through ours.

In: x [..., K], perhaps a residual. Out: as the layer returns it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from driftscope_kernels.cpu.norm import add_rms_norm, rms_norm
from driftscope_kernels.vllm_plugin import patches, rounding


def route() -> None:
    from vllm.model_executor.layers.layernorm import RMSNorm

    original = RMSNorm.forward_native

    def forward(
        self: Any, x: Tensor, residual: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        if not covers(self, x):
            result: Tensor | tuple[Tensor, Tensor] = original(self, x, residual)
            return result
        weight, eps, options = self.weight.data, self.variance_epsilon, rounding.in_use().norm
        if residual is None:
            return rms_norm(x, weight, eps, options=options)
        return add_rms_norm(x, residual, weight, eps, options=options)

    # On CPU vLLM calls the first where custom ops are enabled, else the second.
    patches.replace(RMSNorm, "forward_cpu", forward)
    patches.replace(RMSNorm, "forward_native", forward)


def covers(layer: Any, x: Tensor | None = None) -> bool:
    """Whether ours has the layer's arithmetic: statistics of the whole row, one dtype."""
    if layer.variance_size_override is not None:
        return False
    return x is None or bool(x.dtype == layer.weight.dtype)
