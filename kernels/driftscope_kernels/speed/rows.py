"""Norms, the softmax family, reductions and SwiGLU against torch's own.

Out: one row per op and shape. torch's add + RMSNorm and SiLU · up are two calls each, as written by
users.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from driftscope_kernels.cpu import norm, reduction, softmax, swiglu
from driftscope_kernels.options import VLLM
from driftscope_kernels.speed.row import OURS, TORCH, SpeedRow, Way, alternate, speed_row

# M, K: one token, a small batch, a prefill of SmolLM2 and of a larger model, logits of a batch.
SHAPES = ((1, 576), (8, 576), (512, 576), (512, 2048), (64, 49152))
EPS = 1e-5
# Norms and the softmax family set out to be at least as fast as torch's; the others have no target.
TARGET = 1.0
WITHOUT_TARGET = frozenset({"sum", "mean", "swiglu"})


def measure_rows(name: str, dtype: torch.dtype, rounds: int) -> Iterator[SpeedRow]:
    for m, k in SHAPES:
        generator = torch.Generator().manual_seed(k)
        x, other = (torch.randn(m, k, generator=generator).to(dtype) for _ in range(2))
        weight = torch.randn(k, generator=generator).to(dtype)
        for op, (ours, theirs) in ways_of(x, other, weight).items():
            times = alternate({OURS: ours, TORCH: theirs}, rounds)
            target = None if op in WITHOUT_TARGET else TARGET
            yield speed_row(op, name, (k, 1 if op in ONE_NUMBER else k, m), times, target)


ONE_NUMBER = frozenset({"logsumexp", "sum", "mean"})


def ways_of(x: Tensor, other: Tensor, weight: Tensor) -> dict[str, tuple[Way, Way]]:
    """Ours and torch's way of each op."""
    k = (x.shape[1],)
    return {
        "softmax": (lambda: softmax.softmax(x, -1), lambda: torch.softmax(x, -1)),
        "log_softmax": (lambda: softmax.log_softmax(x, -1), lambda: torch.log_softmax(x, -1)),
        "logsumexp": (lambda: softmax.logsumexp(x, -1), lambda: torch.logsumexp(x, -1)),
        "rms_norm": (
            lambda: norm.rms_norm(x, weight, EPS, options=VLLM.norm),
            lambda: F.rms_norm(x, k, weight, EPS),
        ),
        "add_rms_norm": (
            lambda: norm.add_rms_norm(x, other, weight, EPS, options=VLLM.norm)[0],
            lambda: F.rms_norm(x + other, k, weight, EPS),
        ),
        "sum": (lambda: reduction.sum(x, (1,)), lambda: x.sum(1)),
        "mean": (lambda: reduction.mean(x, (1,)), lambda: x.mean(1)),
        "swiglu": (
            lambda: swiglu.swiglu(x, other, options=VLLM.swiglu),
            lambda: F.silu(x) * other,
        ),
    }
