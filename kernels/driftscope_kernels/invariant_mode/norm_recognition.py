"""RMSNorm recognised in the steps in which transformers writes it, and computed as one op.

In: the torch calls of a block, one after another. Out: `ops.rms_norm` in place of the last one.
The steps before it run as they are, so that a norm written otherwise keeps its own arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from driftscope_kernels import ops
from driftscope_kernels.options import TRANSFORMERS

Stage = Literal["wide", "square", "mean_square", "shifted", "inverse", "unit"]
ATTRIBUTE = "_driftscope_norm"  # on the tensors between the steps


@dataclass(frozen=True, slots=True)
class _Step:
    """How far a norm has come: w = x in float32, w², its mean, + ε, 1/√, times w (and rounded)."""

    stage: Stage
    x: Tensor  # the input, in its own dtype
    wide: Tensor  # the same in float32
    eps: float = 0.0
    versions: tuple[int, ...] = ()  # versions of x, wide and the marked tensor at that time


def recognised(func: Callable[..., Any], args: Any, kwargs: Any) -> Tensor | None:
    """The norm, if this call is the last step of one: weight · unit."""
    if func not in (torch.Tensor.mul, torch.mul) or len(args) != 2 or kwargs:
        return None
    for unit, weight in (args, args[::-1]):
        step = _step(unit)
        if step is None or step.stage != "unit" or not isinstance(weight, Tensor):
            continue
        if torch.is_grad_enabled() and step.x.requires_grad and not unit.requires_grad:
            continue  # the steps ran under no_grad, so that x gets no gradient
        if weight.shape == unit.shape[-1:] and weight.dtype == unit.dtype == step.x.dtype:
            return ops.rms_norm(step.x, weight, step.eps, options=TRANSFORMERS.norm)
    return None


def follow(func: Callable[..., Any], args: Any, kwargs: Any, result: Any) -> None:
    """Marks the result of a step, so that the next is known."""
    advance = _STEPS.get(func)
    if advance is None or not isinstance(result, Tensor) or not isinstance(args[0], Tensor):
        return
    step = advance(args, kwargs, result)
    # A cast that casts nothing returns its argument, which keeps the mark it has.
    if step is not None and result is not step.x:
        versions = _versions(step.x, step.wide, result)
        setattr(result, ATTRIBUTE, replace(step, versions=versions))


def _step(tensor: Any) -> _Step | None:
    """The mark of a tensor, unless something was changed in place since."""
    step: _Step | None = getattr(tensor, ATTRIBUTE, None) if isinstance(tensor, Tensor) else None
    if step is None or step.versions != _versions(step.x, step.wide, tensor):
        return None
    return step


def _versions(*tensors: Tensor) -> tuple[int, ...]:
    """Counts of changes in place; those of torch.inference_mode keep none."""
    return tuple(0 if tensor.is_inference() else tensor._version for tensor in tensors)


def _cast(args: Any, _: Any, result: Tensor) -> _Step | None:
    step = _step(args[0])
    if step is not None and step.stage == "unit":
        return step
    if result.dtype == torch.float32 and args[0].dtype in (torch.bfloat16, torch.float16):
        return _Step("wide", args[0], result)
    return None


def _square(args: Any, _: Any, __: Tensor) -> _Step | None:
    wide = args[0]
    if len(args) != 2 or args[1] != 2 or wide.dtype != torch.float32:
        return None
    step = _step(wide)
    narrow = step.x if step is not None and step.stage == "wide" else wide
    return _Step("square", narrow, wide)


def _mean(args: Any, kwargs: Any, result: Tensor) -> _Step | None:
    step = _step(args[0])
    rows = (*args[0].shape[:-1], 1)
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if step is None or step.stage != "square" or dim != -1 or result.shape != rows:
        return None
    return replace(step, stage="mean_square")


def _shift(args: Any, _: Any, __: Tensor) -> _Step | None:
    step = _step(args[0])
    if step is None or step.stage != "mean_square" or not isinstance(args[1], float):
        return None
    return replace(step, stage="shifted", eps=args[1])


def _invert(args: Any, _: Any, __: Tensor) -> _Step | None:
    step = _step(args[0])
    return None if step is None or step.stage != "shifted" else replace(step, stage="inverse")


def _scale(args: Any, _: Any, __: Tensor) -> _Step | None:
    step = _step(args[1]) if len(args) == 2 else None
    if step is None or step.stage != "inverse" or args[0] is not step.wide:
        return None
    return replace(step, stage="unit")


_STEPS: dict[Callable[..., Any], Callable[[Any, Any, Tensor], _Step | None]] = {
    torch.Tensor.to: _cast,
    torch.Tensor.float: _cast,
    torch.Tensor.pow: _square,
    torch.pow: _square,
    torch.Tensor.mean: _mean,
    torch.mean: _mean,
    torch.Tensor.add: _shift,
    torch.rsqrt: _invert,
    torch.Tensor.rsqrt: _invert,
    torch.Tensor.mul: _scale,
    torch.mul: _scale,
}
