"""Element-wise functions of torch whose bits depend on where in the tensor an element lies.

In: a tensor of any shape. Out: the function of it, each element computed by the vector loop. torch
computes the end of a contiguous tensor, or of a thread's share, by a scalar loop with another
exponential. Here the tensor is padded to whole vectors and cut into what one thread does alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Two registers of the widest vector of 16-bit numbers (512 bits): a step of torch's vector loop
# (aten/src/ATen/native/cpu/Loops.h, vectorized_loop).
VECTOR = 64
# torch gives work to several threads from 32,768 elements on (at::internal::GRAIN_SIZE).
ONE_THREAD = 16_384


def in_full_vectors(op: Callable[..., Tensor]) -> Callable[..., Any]:
    """`op` takes tensors of one shape first, then plain arguments."""

    def run(*args: Any, **kwargs: Any) -> Any:
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        first = tensors[0]
        same = all(t.shape == first.shape and t.dtype == first.dtype for t in tensors)
        if not (same and first.is_floating_point() and first.device.type == "cpu"):
            return NotImplemented
        rest = args[len(tensors) :]
        n = first.numel()
        flat = [F.pad(t.reshape(-1), (0, -n % VECTOR)) for t in tensors]
        parts = [
            op(*(t[start : start + ONE_THREAD] for t in flat), *rest, **kwargs)
            for start in range(0, max(n, 1), ONE_THREAD)
        ]
        return torch.cat(parts)[:n].reshape(first.shape)

    return run
