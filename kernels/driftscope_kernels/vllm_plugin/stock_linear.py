"""vLLM's own linear layers, made again when their weights are written: the control beside ours.

Stock vLLM on the CPU packs each weight once and drops it, so that `model.load_weights` finds
nothing to write into; lm_head of tied embeddings would go on with what it packed first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.vllm_plugin import patches
from driftscope_kernels.vllm_plugin.linear import Dispatch, follow_weights


def route() -> None:
    """vLLM looks the name up in its module at every call."""
    from vllm.model_executor.layers import utils

    original: Dispatch = utils.dispatch_cpu_unquantized_gemm

    def dispatch(layer: Any, remove_weight: bool) -> None:
        if layer.weight.is_meta or layer.weight.ndim != 2:
            original(layer, remove_weight)
        else:
            layer.cpu_linear = StockLinear(layer, original)

    patches.replace(utils, "dispatch_cpu_unquantized_gemm", dispatch)


class StockLinear:
    """vLLM's product with a layer's weight as it is now; the plain weight is kept beside it."""

    def __init__(self, layer: torch.nn.Module, prepare: Dispatch) -> None:
        self._layer, self._prepare = layer, prepare
        self._product: Callable[..., Tensor] | None = None
        follow_weights(self)

    def refresh(self) -> None:
        self._product = None

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._product is None:
            self._prepare(self._layer, False)
            self._product = self._layer.cpu_linear  # type: ignore[assignment]
            self._layer.cpu_linear = self  # type: ignore[assignment]
            bias = getattr(self._layer, "bias", None) if bias is not None else None
        assert self._product is not None
        return self._product(x, weight, bias)
