"""Weights written into a running engine: `load_weights` of the model itself, call by call.

In: what a trainer sends, as TRL does tensor by tensor (trl/generation/vllm_generation.py,
sync_weights). Out: layers whose plain weights are there while they are written, and packed anew at
the next product. Reloads that vLLM does itself (`reload_weights`, weight transfer) make the layers
anew: `linear.route_reloads`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.vllm_plugin import patches
from driftscope_kernels.vllm_plugin.linear import PackedOnlyLinear, refresh_kept
from driftscope_kernels.vllm_plugin.rounding import (
    INVARIANT,
    KERNELS_VARIABLE,
    STOCK,
    KernelChoiceError,
    kernels_asked,
)


def route() -> None:
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader

    original = BaseModelLoader.load_model

    @wraps(original)
    def load_model(*args: Any, **kwargs: Any) -> torch.nn.Module:
        model: torch.nn.Module = original(*args, **kwargs)
        accept_weights(model)
        return model

    patches.replace(BaseModelLoader, "load_model", load_model)


def accept_weights(model: torch.nn.Module) -> None:
    """From now on `model.load_weights` finds every weight that it is to write."""
    if kernels_asked() == STOCK and any(hasattr(layer, "w13_weight") for layer in model.modules()):
        # vLLM would copy them over what it reads as packed, and go on with numbers of no meaning.
        raise KernelChoiceError(
            "vLLM's own experts on the CPU cannot be written while it runs; with "
            f"{KERNELS_VARIABLE}={INVARIANT} they can."
        )
    load: Callable[..., Any] = model.load_weights  # type: ignore[assignment]
    # Looked up once: a trainer calls load_weights for each of some hundred tensors.
    layers = linear_layers(model)

    @wraps(load)
    def load_weights(weights: Iterable[tuple[str, Tensor]], *args: Any, **kwargs: Any) -> Any:
        give_back(layers)
        try:
            return load(weights, *args, **kwargs)
        finally:
            refresh_kept()

    model.load_weights = load_weights  # type: ignore[assignment]


def linear_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    return [layer for layer in model.modules() if hasattr(layer, "cpu_linear")]


def give_back(layers: Iterable[torch.nn.Module]) -> None:
    """Every weight that is held in packed form only, as a plain one again; idempotent."""
    for layer in layers:
        packed = layer.cpu_linear
        if isinstance(packed, PackedOnlyLinear):
            weight: Tensor = layer.weight  # type: ignore[assignment]
            # vLLM's own reload has put parameters of its own there, which it is about to fill.
            if not weight.is_meta and not weight.numel():
                packed.give_back(weight)
