"""Chains of fused multiply-adds for numba, 32 columns side by side.

In: x [M, K], weight in panels [P, K, 32], sums [P, M, 32], all float32. Out: the sums, in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from driftscope_kernels.reference.arithmetic import SMALLEST_NORMAL, TINY_AFTER_ROUNDING, Float32

PANEL = 32
ZERO = np.float32(0.0)  # a bare 0.0 would make numba compare in float64

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    """numba.njit with a type. fastmath is off: it would let LLVM change the order."""
    made: _Function = numba.njit(nogil=True, cache=True, fastmath=False)(function)
    return made


@intrinsic  # type: ignore[untyped-decorator]
def _fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """LLVM's llvm.fma on float32: one rounding, in hardware or in the C library."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


@_compiled
def chain(x: Float32, weight: Float32, sums: Float32) -> None:
    """sums[p, m, j] = fma(x[m, k], weight[p, k, j], …) for k ascending.

    Four k at a time, so that a sum goes to memory and back once in four steps.
    """
    length = x.shape[1]
    for p in range(weight.shape[0]):
        for m in range(x.shape[0]):
            row = sums[p, m]
            for k in range(0, length - 3, 4):
                x0, x1, x2, x3 = x[m, k], x[m, k + 1], x[m, k + 2], x[m, k + 3]
                for j in range(PANEL):
                    total = _fma(x0, weight[p, k, j], row[j])
                    total = _fma(x1, weight[p, k + 1, j], total)
                    total = _fma(x2, weight[p, k + 2, j], total)
                    row[j] = _fma(x3, weight[p, k + 3, j], total)
            for k in range(length - length % 4, length):
                for j in range(PANEL):
                    row[j] = _fma(x[m, k], weight[p, k, j], row[j])


@_compiled
def _flushing_fma(value: np.float32, weight: np.float32, addend: np.float32) -> np.float32:
    """fma, or zero of its sign where hardware calls the result tiny.

    The float64 sum is exact wherever the answer is in doubt.
    """
    exact = np.float64(value) * np.float64(weight) + np.float64(addend)
    total: np.float32 = _fma(value, weight, addend)
    if abs(exact) < TINY_AFTER_ROUNDING:
        return np.float32(np.copysign(np.float32(0.0), total))
    return total


@_compiled
def chain_of_pairs(x: Float32, weight: Float32, sums: Float32) -> None:
    """As `chain` with K even: the odd element of each pair first, tiny results flushed.

    x, weight and sums hold no subnormal numbers. Tiny results are rare, so a pair is first computed
    without a look at each; if one of its 32 columns may have had one, it is computed again.
    """
    after = np.empty(PANEL, np.float32)
    for p in range(weight.shape[0]):
        for m in range(x.shape[0]):
            row = sums[p, m]
            for k in range(0, x.shape[1], 2):
                even, odd = x[m, k], x[m, k + 1]
                doubtful = np.int32(0)
                for j in range(PANEL):
                    first = _fma(odd, weight[p, k + 1, j], row[j])
                    second = _fma(even, weight[p, k, j], first)
                    doubtful |= np.int32((abs(first) <= SMALLEST_NORMAL) & (first != ZERO))
                    doubtful |= np.int32((abs(second) <= SMALLEST_NORMAL) & (second != ZERO))
                    after[j] = second
                if doubtful:
                    for j in range(PANEL):
                        first = _flushing_fma(odd, weight[p, k + 1, j], row[j])
                        row[j] = _flushing_fma(even, weight[p, k, j], first)
                else:
                    for j in range(PANEL):
                        row[j] = after[j]
