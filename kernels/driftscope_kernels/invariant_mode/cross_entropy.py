"""Cross entropy of labels: our log-probabilities, their sum by our order too.

In: what torch.nn.functional.cross_entropy is given. Out: the loss, or NotImplemented.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from driftscope_kernels import ops
from driftscope_kernels.invariant_mode.eligible import eligible


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
