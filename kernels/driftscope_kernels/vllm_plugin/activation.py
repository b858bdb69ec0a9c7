"""vLLM's SiluAndMul through our SwiGLU.

In: x [..., 2·d], gate and up side by side. Out: [..., d].
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from driftscope_kernels.cpu.swiglu import swiglu
from driftscope_kernels.options import VLLM
from driftscope_kernels.vllm_plugin import patches


def route() -> None:
    from vllm.model_executor.layers.activation import SiluAndMul

    def forward_cpu(self: Any, x: Tensor) -> Tensor:
        return silu_and_mul(x)

    patches.replace(SiluAndMul, "forward_cpu", forward_cpu)
    patches.replace(SiluAndMul, "forward_native", staticmethod(silu_and_mul))


def silu_and_mul(x: Tensor) -> Tensor:
    """silu(gate)·up, silu rounded to the dtype: as vLLM's own, and as transformers has it."""
    width = x.shape[-1] // 2
    return swiglu(x[..., :width], x[..., width:], options=VLLM.swiglu)
