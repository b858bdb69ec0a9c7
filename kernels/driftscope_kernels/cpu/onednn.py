"""Whether oneDNN, which vLLM's linear layers use on CPU, multiplies a dtype on this processor."""

from __future__ import annotations

import torch


def has_onednn(dtype: torch.dtype) -> bool:
    """It has no fp16 product on most processors, and none of bf16 without AVX-512 or AVX-VNNI."""
    if dtype == torch.float16 or not torch._C._has_mkldnn:
        return False
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
