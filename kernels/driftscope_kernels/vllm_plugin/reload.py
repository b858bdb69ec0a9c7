"""Tells our packed weights when vLLM has loaded others.

Layers that hold their weight in packed form only are packed anew by vLLM's reload itself, which
calls the function that `linear.route` replaced. This is for weights that two layers share.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from driftscope_kernels.vllm_plugin import patches
from driftscope_kernels.vllm_plugin.linear import refresh_kept


def route() -> None:
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
    from vllm.model_executor.model_loader.reload import layerwise
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    # In this order: reload from a path or an iterator; weight transfer; model.load_weights().
    for owner, name in (
        (GPUModelRunner, "reload_weights"),
        (layerwise, "finalize_layerwise_processing"),
        (VocabParallelEmbedding, "weight_loader"),
    ):
        patches.replace(owner, name, _then_refresh(getattr(owner, name)))


def _then_refresh(original: Callable[..., Any]) -> Callable[..., Any]:
    # With the signature of the original: a reload binds a loader's arguments by name.
    @wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        finally:
            refresh_kept()

    return call
