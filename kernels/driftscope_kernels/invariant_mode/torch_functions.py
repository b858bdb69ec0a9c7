"""Functions of torch.nn.functional that the mode replaces, cross-entropy among them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from driftscope_kernels import ops
from driftscope_kernels.autograd.arguments import carry
from driftscope_kernels.invariant_mode.aten_ops import InvariantModeError, autocast, eligible
from driftscope_kernels.invariant_mode.attention import scaled_dot_product_attention
from driftscope_kernels.options import TRANSFORMERS


class _Picked(torch.autograd.Function):
    """Minus one element of every row; torch's own gradient of a choice adds into zeros."""

    @staticmethod
    def forward(ctx: Any, logprobs: Tensor, targets: Tensor) -> Any:
        ctx.save_for_backward(targets)
        ctx.classes = logprobs.shape[1]
        return -logprobs.gather(1, targets[:, None])[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        (targets,) = ctx.saved_tensors
        chosen = targets[:, None] == torch.arange(ctx.classes)
        return torch.where(chosen, -dy[:, None], torch.zeros((), dtype=dy.dtype)), None


_picked: Callable[..., Any] = _Picked.apply


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """With class weights, or more than two dimensions, the sum over labels is torch's own."""
    if not eligible(input) or target.is_floating_point() or label_smoothing:
        return NotImplemented
    if size_average is not None or reduce is not None:
        return NotImplemented
    logprobs = ops.log_softmax(input, 1 if input.dim() > 1 else 0)
    if weight is not None or input.dim() > 2 or target.dim() != input.dim() - 1:
        return F.nll_loss(logprobs, target, weight, None, ignore_index, None, reduction)
    return _reduced(logprobs, target, ignore_index, reduction)


def _reduced(logprobs: Tensor, target: Tensor, ignore_index: int, reduction: str) -> Any:
    if logprobs.dim() == 1:
        logprobs, target = logprobs[None], target[None]
        if reduction == "none":
            return _losses(logprobs, target, ignore_index)[0]
    losses = _losses(logprobs, target, ignore_index)
    if reduction == "none":
        return losses
    # In float32 up to the loss, as torch has it.
    total = ops.sum(losses.float())
    if reduction == "mean":
        total = total / (target != ignore_index).sum()
    elif reduction != "sum":
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return total.to(logprobs.dtype)


def _losses(logprobs: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    ignored = target == ignore_index
    losses: Tensor = _picked(logprobs, target.masked_fill(ignored, 0))
    return losses.masked_fill(ignored, 0.0)


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding: int | None) -> Any:
        ctx.save_for_backward(ids, weight)
        ctx.padding = padding
        return torch.ops.aten.embedding(weight, ids)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        ids, weight = ctx.saved_tensors
        rows = dy.reshape(-1, weight.shape[1]).float()
        flat = ids.flatten()
        if ctx.padding is not None:
            rows, flat = rows[flat != ctx.padding], flat[flat != ctx.padding]
        main_grad = carry(weight)
        if main_grad is not None:
            # Row by row in order (aten/src/ATen/native/TensorAdvancedIndexing.cpp, index_add_cpu_).
            main_grad.index_add_(0, flat, rows)
            return None, None, None
        total = torch.zeros(weight.shape).index_add_(0, flat, rows)
        return None, total.to(weight.dtype), None


_apply: Callable[..., Any] = _Embedding.apply


def embedding(ids: Tensor, weight: Tensor, padding: int | None) -> Tensor:
    """ids int64 or int32 [...], weight [V, K]: [..., K]; the token `padding` gets no gradient."""
    y: Tensor = _apply(ids, weight, padding)
    return y


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    x, w, b = autocast(input, weight, bias)
    return ops.linear(x, w, b) if eligible(x, w, b) and w.dim() == 2 else NotImplemented


def _matmul(input: Tensor, other: Tensor) -> Any:
    a, b = autocast(input, other)
    if not eligible(a, b) or a.dim() < 2 or b.dim() < 2:
        return NotImplemented  # dot and matrix-vector products: left to the ATen table
    if b.dim() == 2:
        return ops.matmul(a, b)
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
    left, right = (x.expand(*batch, *x.shape[-2:]).flatten(0, -3) for x in (a, b))
    return ops.bmm(left, right).reshape(*batch, a.shape[-2], b.shape[-1])


def _grouped_mm(
    mat_a: Tensor,
    mat_b: Tensor,
    *,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Any:
    """mat_a [S, K] sorted by expert, mat_b [experts, K, N], offs: where each expert's rows end."""
    if not eligible(mat_a, mat_b) or bias is not None or out_dtype not in (None, mat_a.dtype):
        return NotImplemented
    if offs is None or mat_a.dim() != 2 or mat_b.dim() != 3:
        return NotImplemented
    ends = [0, *offs.tolist()]
    parts = [
        ops.matmul(mat_a[start:stop], mat_b[expert])
        for expert, (start, stop) in enumerate(pairwise(ends))
        if stop > start
    ]
    # Rows of no expert are undefined in torch, nothing here.
    parts.append(mat_a.new_zeros(len(mat_a) - ends[-1], mat_b.shape[2]))
    return torch.cat(parts)


def _softmax_family(op: Callable[[Tensor, int], Tensor]) -> Callable[..., Any]:
    def run(input: Tensor, dim: int | None = None, *args: Any, **kwargs: Any) -> Any:
        dtype = kwargs.pop("dtype", None)
        kwargs.pop("_stacklevel", None)
        # softmax(input, dim, _stacklevel, dtype) in torch.nn.functional, (dim, dtype) in torch.
        for arg in args:
            dtype = arg if isinstance(arg, torch.dtype) else dtype
        if kwargs or dim is None or not isinstance(input, Tensor):
            return NotImplemented
        x = input if dtype is None else input.to(dtype)
        return op(x, dim) if eligible(x) and x.dim() else NotImplemented

    return run


def _logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Any:
    if not eligible(input) or not isinstance(dim, int):
        return NotImplemented
    y = ops.logsumexp(input, dim)
    return y.unsqueeze(dim) if keepdim else y


def _silu(input: Tensor, inplace: bool = False) -> Any:
    if not eligible(input) or inplace:
        return NotImplemented
    # silu(x)·1, rounded once: a product with 1 is exact.
    return ops.swiglu(input, torch.ones_like(input), options=TRANSFORMERS.swiglu)


def _rms_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Any:
    if not eligible(input, weight) or weight is None or weight.dim() != 1:
        return NotImplemented
    used = torch.finfo(input.dtype).eps if eps is None else eps
    return ops.rms_norm(input, weight, used, options=TRANSFORMERS.norm)


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    if not eligible(weight) or max_norm is not None or scale_grad_by_freq or sparse:
        return NotImplemented
    if padding_idx is not None and padding_idx < 0:
        padding_idx += len(weight)
    return embedding(input, weight, padding_idx)


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    if training and p > 0:
        raise InvariantModeError(
            f"dropout with p = {p}: which values are dropped depends on the place in the batch. "
            "Set the model's dropout to 0 or call model.eval()."
        )
    return NotImplemented  # torch hands the input on


# Name in the coverage, replacement, and the torch functions it stands for.
_ROUTES: tuple[tuple[str, Callable[..., Any], tuple[Any, ...]], ...] = (
    ("linear", _linear, (F.linear,)),
    (
        "matmul",
        _matmul,
        (
            torch.matmul,
            torch.mm,
            torch.bmm,
            torch.Tensor.matmul,
            torch.Tensor.__matmul__,
            torch.Tensor.mm,
            torch.Tensor.bmm,
        ),
    ),
    ("grouped_mm", _grouped_mm, (F.grouped_mm, torch._grouped_mm)),
    (
        "softmax",
        _softmax_family(ops.softmax),
        (F.softmax, torch.softmax, torch.Tensor.softmax),
    ),
    (
        "log_softmax",
        _softmax_family(ops.log_softmax),
        (F.log_softmax, torch.log_softmax, torch.Tensor.log_softmax),
    ),
    ("logsumexp", _logsumexp, (torch.logsumexp, torch.Tensor.logsumexp)),
    ("cross_entropy", cross_entropy, (F.cross_entropy,)),
    ("silu", _silu, (F.silu,)),
    ("rms_norm", _rms_norm, (F.rms_norm, torch.rms_norm)),
    ("embedding", _embedding, (F.embedding,)),
    ("attention", scaled_dot_product_attention, (F.scaled_dot_product_attention,)),
    ("dropout", _dropout, (F.dropout, torch.dropout)),
)
ROUTES: dict[Any, tuple[str, Callable[..., Any]]] = {
    function: (name, run) for name, run, functions in _ROUTES for function in functions
}
