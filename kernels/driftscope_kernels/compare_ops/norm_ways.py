"""Where RMSNorm rounds and in which order it adds: its choices, and what computes them.

In: float32 rows and one option of each choice. Out: normed rows in the dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.choices import Choice
from driftscope_kernels.compare_ops.parameters import NormParameters
from driftscope_kernels.reference.arithmetic import lane_dot
from driftscope_kernels.reference.arrays import widened

#: What residual_norm norms. Hugging Face: the stream as it is kept.
READS: Final = (
    Choice("rounded_sum"),
    Choice("float32_sum", "rounding_point", "the norm reads the float32 sum"),
)
_LLAMA_WEIGHT: Final = (
    Choice("after_cast"),
    Choice("before_cast", "rounding_point", "the weight multiplies before the cast"),
)
_GEMMA_WEIGHT: Final = (
    Choice("before_cast"),
    Choice("after_cast", "rounding_point", "the weight multiplies after the cast"),
)
_STATISTICS: Final = (
    Choice("float32"),
    Choice("statistics_in_dtype", "dtype", "the mean of squares is taken in the dtype"),
)
_ROOT: Final = (
    Choice("rsqrt"),
    Choice("division", "primitive", "x is divided by the root, not multiplied by its reciprocal"),
    Choice("exact_rsqrt", "primitive", "the reciprocal root is rounded once, as GPUs do"),
)
_SUM: Final = (
    Choice("torch_sum"),
    Choice("lanes", "reduction_order", "squares are added in 16 lanes by fused multiply-add"),
    Choice("float64_sum", "reduction_order", "squares are added without rounding"),
)


def axes_of(parameters: NormParameters) -> tuple[Sequence[Choice], ...]:
    weight: Sequence[Choice] = _GEMMA_WEIGHT if parameters.unit_offset else _LLAMA_WEIGHT
    if parameters.weight is None:
        weight = weight[:1]
    return weight, _STATISTICS, _ROOT, _SUM


def plain_says(parameters: NormParameters) -> str:
    where = "before" if parameters.unit_offset else "after"
    return f"float32 statistics, the weight multiplies {where} the cast"


def normed_rows(
    x: Tensor, parameters: NormParameters, dtype: torch.dtype, choices: Sequence[str]
) -> Tensor:
    """`x` float32 [tokens, features]."""
    weight_at, statistics, root, total = choices
    rows = x.reshape(-1, parameters.width or x.shape[-1])
    mean = _mean_square(rows.to(dtype) if statistics == "statistics_in_dtype" else rows, total)
    shifted = mean + parameters.epsilon
    if root == "division":
        scaled = rows / shifted.sqrt().float()
    elif root == "exact_rsqrt":
        scaled = rows * shifted.double().rsqrt().to(shifted.dtype).float()
    else:
        scaled = rows * shifted.rsqrt().float()
    if parameters.weight is not None:
        weight = parameters.weight
        if weight_at == "before_cast":
            scaled = scaled * (weight.float() + 1.0 if parameters.unit_offset else weight.float())
        else:
            scaled = (weight + 1.0 if parameters.unit_offset else weight) * scaled.to(dtype)
    return scaled.to(dtype).reshape(x.shape)


def _mean_square(rows: Tensor, total: str) -> Tensor:
    """[rows, 1] in the dtype of `rows`"""
    if total == "lanes":
        wide = widened(rows)
        summed = torch.from_numpy(lane_dot(wide, wide))[:, None]
        return (summed / rows.shape[-1]).to(rows.dtype)
    if total == "float64_sum":
        return rows.double().pow(2).mean(-1, keepdim=True).to(rows.dtype)
    return rows.pow(2).mean(-1, keepdim=True)


def exactly_normed(total: Tensor, parameters: NormParameters) -> Tensor:
    rows = total.reshape(-1, parameters.width or total.shape[-1])
    normed = rows / (rows.square().mean(-1, keepdim=True) + parameters.epsilon).sqrt()
    return normed.reshape(total.shape) * weight_of(parameters, total)


def weight_of(parameters: NormParameters, like: Tensor) -> Tensor:
    """float64 [features], repeated for every head."""
    if parameters.weight is None:
        return torch.ones(like.shape[-1], dtype=torch.float64)
    weight = parameters.weight.double() + float(parameters.unit_offset)
    return weight.repeat(like.shape[-1] // len(weight))


def carried(moved: Tensor, total: Tensor, parameters: NormParameters) -> Tensor:
    """How far normed rows move where their elements do by `moved`: directly, and through the root,
    whose relative change is at most Σ|x|·moved / Σx². Twice that, for what first order leaves out.
    """
    width = parameters.width or total.shape[-1]
    rows, shift = total.reshape(-1, width), moved.reshape(-1, width)
    mean = rows.square().mean(-1, keepdim=True) + parameters.epsilon
    root = (rows.abs() * shift).mean(-1, keepdim=True) / mean
    change = 2 * (shift + rows.abs() * root) / mean.sqrt()
    return change.reshape(total.shape) * weight_of(parameters, total).abs()


def code_of(x: str, dtype: str, choices: Sequence[str]) -> str:
    weight_at, statistics, root, total = choices
    wide = f"{x}.to({dtype})" if statistics == "statistics_in_dtype" else f"{x}.float()"
    mean = f"{wide}.pow(2).mean(-1, True)"
    if total == "lanes":
        mean = f"torch.from_numpy(lane_dot(a := widened({wide}), a))[:, None] / {x}.shape[-1]"
    elif total == "float64_sum":
        mean = f"{wide}.double().pow(2).mean(-1, True).float()"
    scaled = {
        "rsqrt": f"{x}.float() * torch.rsqrt({mean} + eps)",
        "division": f"{x}.float() / torch.sqrt({mean} + eps)",
        "exact_rsqrt": f"{x}.float() * torch.rsqrt(({mean} + eps).double()).float()",
    }[root]
    if weight_at == "before_cast":
        return f"({scaled} * weight.float()).to({dtype})"
    return f"weight * ({scaled}).to({dtype})"
