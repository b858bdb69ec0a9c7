"""What really ran in a live model, read back from its layers: backends, kernels, threads.

In: a loaded vLLM or transformers model. Out: JSON values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def engine_ran(model: Any) -> dict[str, Any]:
    """Of a vLLM model in this process. A layer that fell back to torch says so."""
    attention = next((m for m in model.modules() if hasattr(m, "attn_backend")), None)
    return {
        "attention_backend": None if attention is None else attention.attn_backend.get_name(),
        "attention_implementation": None if attention is None else type(attention.impl).__name__,
        "linear_kernels": dict(Counter(_linear_kernels(model))),
        "norm_forward": _forward_of(model, "RMSNorm"),
        **machine(),
    }


def trainer_ran(model: nn.Module) -> dict[str, Any]:
    backends: Any = torch.backends
    return {
        "attention_backend": str(getattr(model.config, "_attn_implementation", None)),
        "linear_kernels": {"torch.nn.functional.linear": len(_of_type(model, nn.Linear))},
        "onednn_for_16_bit": bool(backends.mkldnn.is_available()),
        "mkl_for_float32": bool(backends.mkl.is_available()),
        **machine(),
    }


def machine() -> dict[str, Any]:
    """Of this process."""
    return {
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "amx": bool(torch.cpu._is_amx_tile_supported()),
        "avx512_bf16": bool(torch.cpu._is_avx512_bf16_supported()),
    }


def _linear_kernels(model: nn.Module) -> Iterator[str]:
    """By the function that a layer calls: vLLM chooses one when it has loaded the weights."""
    for module in model.modules():
        chosen = getattr(module, "cpu_linear", None)
        if chosen is None:
            continue
        code = getattr(chosen, "__code__", None)
        # A lambda over the op; what it calls stands last among its names.
        yield type(chosen).__name__ if code is None else str(code.co_names[-1])


def _forward_of(model: nn.Module, kind: str) -> str | None:
    norm = next((m for m in model.modules() if type(m).__name__.endswith(kind)), None)
    method = getattr(norm, "_forward_method", None)
    return None if method is None else str(getattr(method, "__name__", method))


def _of_type(model: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kind)]
