"""The linear layer without a C++ compiler: numba, with LLVM's fused multiply-add.

In: x [M, K], weight [N, K]. Out: [M, N], the bits of `driftscope_kernels.reference.linear`. The
processor's mode is taken as it is: torch.set_flush_denormal(True) in this thread would change bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from driftscope_kernels.reference.arithmetic import Float32, flushed
from driftscope_kernels.reference.arrays import QUIET_NAN, widened
from driftscope_kernels.reference.linear import merged, segment_bounds

Bits = npt.NDArray[Any]


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    tp_segments: int,
    out_dtype: torch.dtype,
) -> Tensor:
    """x times weight [N, K], plus bias [N]; from `initial` [M, N] float32, or None for +0."""
    bounds = [(0, x.shape[1])] if tp_segments == 1 else segment_bounds(x.shape[1], tp_segments)
    wide_x, wide_weight = widened(x), widened(weight)
    pairs = x.dtype == torch.bfloat16
    parts = [_sums(wide_x[:, a:b], wide_weight[:, a:b], initial, pairs) for a, b in bounds]
    total = merged(parts)
    if bias is not None:
        with np.errstate(all="ignore"):
            total = total + widened(bias)
    return _rounded(total, out_dtype)


def _sums(x: Float32, weight: Float32, initial: Tensor | None, pairs: bool) -> Float32:
    """Accumulators [M, N] of one stretch of K."""
    # Here and not above: vLLM 0.32 cannot start an engine once llvmlite is loaded, and numba takes
    # half a second.
    from driftscope_kernels.cpu.portable_chain import PANEL, chain, chain_of_pairs

    (m, k), n = x.shape, len(weight)
    panels = -(-n // PANEL)
    total = np.zeros((panels, m, PANEL), np.float32)
    if initial is not None:
        padded = np.zeros((m, panels * PANEL), np.float32)
        padded[:, :n] = widened(initial)
        total[:] = padded.reshape(m, panels, PANEL).transpose(1, 0, 2)
    if pairs:
        x, weight, total = flushed(x), flushed(weight), flushed(total)
    length = k + k % 2 if pairs else k
    packed = np.zeros((panels * PANEL, length), np.float32)
    packed[:n, :k] = weight
    by_k = np.ascontiguousarray(packed.reshape(panels, PANEL, length).transpose(0, 2, 1))
    rows = np.zeros((m, length), np.float32)
    rows[:, :k] = x
    (chain_of_pairs if pairs else chain)(rows, by_k, total)
    return total.transpose(1, 0, 2).reshape(m, panels * PANEL)[:, :n]


def _rounded(total: Float32, dtype: torch.dtype) -> Tensor:
    """Rounded once to nearest even, every NaN the quiet one."""
    quiet = np.ascontiguousarray(np.where(np.isnan(total), QUIET_NAN, total))
    if dtype != torch.bfloat16:
        return torch.from_numpy(quiet).to(dtype)
    # By integers: torch's own cast writes another NaN in its vector loop.
    bits: Bits = quiet.view(np.uint32)
    upper = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return torch.from_numpy(upper.view(np.int16)).view(torch.bfloat16)
