"""ATen operators that the mode replaces, and which tensors it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from driftscope_kernels.registry import DTYPES, implementation


class InvariantModeError(RuntimeError):
    """An op whose result inherently depends on the batch, such as dropout."""


def eligible(*tensors: Any) -> bool:
    """All are ordinary tensors on the CPU, of one dtype that the kernels have; None counts not."""
    given = [tensor for tensor in tensors if tensor is not None]
    return (
        all(isinstance(tensor, Tensor) and tensor.device.type == "cpu" for tensor in given)
        and all(tensor.layout == torch.strided for tensor in given)
        and len({tensor.dtype for tensor in given}) == 1
        and given[0].dtype in DTYPES
    )


def autocast(*tensors: Any) -> tuple[Any, ...]:
    """As torch.autocast casts the arguments of a matrix product, where it is switched on."""
    if not torch.is_autocast_enabled("cpu"):
        return tensors
    dtype = torch.get_autocast_dtype("cpu")
    return tuple(
        tensor.to(dtype) if isinstance(tensor, Tensor) and tensor.is_floating_point() else tensor
        for tensor in tensors
    )


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
    """The gradient of x[index], x[:, index] or x[index, index]: torch adds by several threads at
    once, in no fixed order; here one after another.
    """
    given = {dim: index for dim, index in enumerate(indices) if index is not None}
    first = min(given, default=0)
    if not accumulate or not given or not eligible(x, values):
        return NotImplemented
    if list(given) != list(range(first, first + len(given))) or not _are_places(given.values()):
        return NotImplemented
    last = first + len(given)
    offsets = torch.zeros_like(given[first])
    for dim, index in given.items():
        offsets = offsets * x.shape[dim] + index % x.shape[dim]
    if values.shape != (*x.shape[:first], len(offsets), *x.shape[last:]):
        return NotImplemented
    return x.flatten(first, last - 1).index_add(first, offsets, values).view(x.shape)


def _are_places(indices: Iterable[Tensor]) -> bool:
    shapes = {index.shape for index in indices if index.dtype == torch.int64 and index.dim() == 1}
    return len(shapes) == 1 and all(index.shape in shapes for index in indices)


def _index_put_in_place(
    x: Tensor,
    indices: Sequence[Tensor | None],
    values: Tensor,
    accumulate: bool = False,
    unsafe: bool = False,
) -> Any:
    return _in_place(_index_put)(x, indices, values, accumulate)


def _in_place(run: Callable[..., Any]) -> Callable[..., Any]:
    def in_place(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        result = run(x, *args, **kwargs)
        return result if result is NotImplemented else x.copy_(result)

    return in_place


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
    aten.rsqrt_.default: _in_place(_rsqrt),
    **{
        op_: _in_place(in_full_vectors(op))
        for op_, op in (
            (aten.sigmoid_.default, aten.sigmoid.default),
            (aten.silu_.default, aten.silu.default),
            (aten.gelu_.default, aten.gelu.default),
        )
    },
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
