"""The ATen ops that invariant mode takes over below autograd: sums, and what the gradients need.

In: the arguments of an ATen overload. Out: its result, or NotImplemented where torch has to do it.
These have no gradient of their own: autograd has recorded that of the op above them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.invariant_mode.elementwise import in_full_vectors
from driftscope_kernels.invariant_mode.eligible import eligible
from driftscope_kernels.reference.arrays import DTYPES
from driftscope_kernels.registry import implementation

aten = torch.ops.aten


def _reduction(op: str) -> Callable[..., Any]:
    def run(
        x: Tensor,
        dim: Sequence[int] | None = None,
        keepdim: bool = False,
        *,
        dtype: torch.dtype | None = None,
    ) -> Any:
        if not eligible(x) or dtype not in (None, *DTYPES):
            return NotImplemented
        asked = range(x.dim()) if not dim else [d % max(x.dim(), 1) for d in dim]
        dims = tuple(sorted(asked))
        return implementation(op, x.dtype)(x, dims, keepdim=keepdim, out_dtype=dtype)

    return run


def _mm(a: Tensor, b: Tensor) -> Any:
    return implementation("linear", a.dtype)(a, b.t()) if eligible(a, b) else NotImplemented


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    if not eligible(bias, a, b) or (beta, alpha) != (1, 1) or bias.shape != b.shape[1:]:
        return NotImplemented
    return implementation("linear", a.dtype)(a, b.t(), bias)


def _bmm(a: Tensor, b: Tensor) -> Any:
    return implementation("bmm", a.dtype)(a, b) if eligible(a, b) else NotImplemented


def _mv(a: Tensor, b: Tensor) -> Any:
    return _mm(a, b[:, None])[:, 0] if eligible(a, b) else NotImplemented


def _dot(a: Tensor, b: Tensor) -> Any:
    return _mm(a[None], b[:, None])[0, 0] if eligible(a, b) else NotImplemented


def _softmax(op: str) -> Callable[..., Any]:
    def run(x: Tensor, dim: int, half_to_float: bool) -> Any:
        if not eligible(x) or not x.dim():
            return NotImplemented
        dtype = torch.float32 if half_to_float else x.dtype
        return implementation(op, x.dtype)(x, dim % x.dim(), out_dtype=dtype)

    return run


def _index_put(
    x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False
) -> Any:
    """The gradient of x[index]: torch adds by several threads at once, in no fixed order."""
    index = indices[0] if len(indices) == 1 else None
    if not accumulate or index is None or index.dim() != 1 or index.dtype != torch.int64:
        return NotImplemented
    if not eligible(x, values) or values.shape != (len(index), *x.shape[1:]):
        return NotImplemented
    return x.index_add(0, index % len(x), values)


def _index_put_in_place(
    x: Tensor,
    indices: Sequence[Tensor | None],
    values: Tensor,
    accumulate: bool = False,
    unsafe: bool = False,
) -> Any:
    result = _index_put(x, indices, values, accumulate)
    return result if result is NotImplemented else x.copy_(result)


def _rsqrt(x: Tensor) -> Any:
    """In float32 torch's two loops agree: root and quotient are both rounded correctly."""
    return NotImplemented if x.dtype == torch.float32 else _rsqrt_in_full_vectors(x)


_rsqrt_in_full_vectors = in_full_vectors(aten.rsqrt.default)
_SUM, _MEAN = _reduction("sum"), _reduction("mean")
ROUTES: dict[Any, Callable[..., Any]] = {
    aten.sum.default: _SUM,
    aten.sum.dim_IntList: _SUM,
    aten.mean.default: _MEAN,
    aten.mean.dim: _MEAN,
    aten.mm.default: _mm,
    aten.addmm.default: _addmm,
    aten.bmm.default: _bmm,
    aten.mv.default: _mv,
    aten.dot.default: _dot,
    aten._softmax.default: _softmax("softmax"),
    aten._log_softmax.default: _softmax("log_softmax"),
    aten.index_put.default: _index_put,
    aten._index_put_impl_.default: _index_put_in_place,
    aten.rsqrt.default: _rsqrt,
    **{
        op: in_full_vectors(op)
        for op in (
            aten.sigmoid.default,
            aten.silu.default,
            aten.silu_backward.default,
            aten.gelu.default,
            aten.gelu_backward.default,
            aten.softplus.default,
            aten.softplus_backward.default,
        )
    },
}
