"""The linear kernel against torch's F.linear and vLLM's oneDNN linear.

Out: one row per case; `packed` rows have the weight packed once before, the others in every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from driftscope_kernels.cpu.linear import linear, pack_weight
from driftscope_kernels.cpu.onednn import has_onednn
from driftscope_kernels.speed.row import OURS, TORCH, VLLM, SpeedRow, Way, alternate, speed_row

SHAPES = ((576, 1536), (2048, 8192), (1536, 576), (4096, 4096))  # K, N
ROWS = (1, 8, 32, 128, 512)
FEW_ROWS = 8
PACKING_ROWS = 128  # from here on packing in every call is measured too
# Times faster than the other that we set out to be.
TORCH_TARGET, TORCH_TARGET_FEW, TORCH_TARGET_FLOAT16, TORCH_TARGET_UNPACKED = 1.1, 1.5, 5.0, 0.9
VLLM_TARGET, VLLM_TARGET_FEW = 0.95, 1.2


def measure_linear(name: str, dtype: torch.dtype, rounds: int) -> Iterator[SpeedRow]:
    for k, n in SHAPES:
        generator = torch.Generator().manual_seed(k)
        weight = torch.randn(n, k, generator=generator).to(dtype)
        pack, onednn = pack_weight(weight), vllm_linear(weight)
        for m in ROWS:
            x = torch.randn(m, k, generator=generator).to(dtype)
            ways: dict[str, Way] = {
                OURS: partial(linear, x, weight, weight_pack=pack),
                TORCH: partial(F.linear, x, weight),
            }
            if onednn is not None:
                ways[VLLM] = partial(onednn, x)
            if m >= PACKING_ROWS:
                ways["unpacked"] = partial(linear, x, weight)
            times = alternate(ways, rounds)
            target, vllm_target = targets(dtype, m)
            yield speed_row(
                "linear", name, (k, n, m), times, target, packed=True, vllm_target=vllm_target
            )
            if m >= PACKING_ROWS:
                unpacked = {OURS: times["unpacked"], TORCH: times[TORCH]}
                yield speed_row("linear", name, (k, n, m), unpacked, TORCH_TARGET_UNPACKED)


def vllm_linear(weight: Tensor) -> Callable[[Tensor], Tensor] | None:
    """vLLM's CPU linear as its layers call it: None without vLLM, or where it has no kernel."""
    if find_spec("vllm") is None or not has_onednn(weight.dtype):
        return None
    from vllm import _custom_ops as ops

    handler = ops.create_onednn_mm(weight.t(), 128)  # 128: what vLLM's layers pass
    return lambda x: ops.onednn_mm(handler, x, None)


def targets(dtype: torch.dtype, m: int) -> tuple[float, float]:
    """Against torch, against vLLM; the weight packed once."""
    if dtype == torch.float16:
        return TORCH_TARGET_FLOAT16, 0.0
    few = m <= FEW_ROWS
    return (TORCH_TARGET_FEW, VLLM_TARGET_FEW) if few else (TORCH_TARGET, VLLM_TARGET)
