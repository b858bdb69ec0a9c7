"""Inputs of the gradients that can be checked: the forward pass's, and dy, which comes from above.

In: shape, rows, dtype, kind, seed. Out: Batch. Of a row gradient "x" and "dy" are cut into rows; a
weight gradient has k tokens, and the rows are those of the weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from driftscope_kernels.check import inputs as kinds
from driftscope_kernels.check.placement import Batch

if TYPE_CHECKING:
    from driftscope_kernels.check.op_cases import Shape

EPS = 1e-6  # of Llama-like models
HEADS, KV_HEADS = 4, 2


def linear_grad_x(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    """dX [rows, n] = dy [rows, k] · weight [k, n]: the reduction runs over the layer's outputs."""
    generator = _generator(seed)
    dy, turned = _factors(rows, shape.n, shape.k, dtype, kind, generator)
    x = torch.randn(rows, shape.n, generator=generator).to(dtype)
    return Batch({"x": x, "weight": turned.T.contiguous(), "dy": dy}, {}, ("x", "dy"))


def linear_grad_weight(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    """dW [rows, n] = dyᵀ · x, over k tokens."""
    generator = _generator(seed)
    dy, x = _factors(rows, shape.n, shape.k, dtype, kind, generator)
    weight = torch.randn(rows, shape.n, generator=generator).to(dtype)
    inputs = {"x": x.T.contiguous(), "weight": weight, "dy": dy.T.contiguous()}
    return Batch(inputs, {"micro_batch": None}, ())


def rms_norm_grad_x(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    generator = _generator(seed)
    x = _neutral(kind, torch.ones(rows, shape.k), generator).to(dtype)
    weight = _neutral(kind, torch.ones(shape.k), generator).to(dtype)
    dy = _row_gradient(kind, rows, shape.k, dtype, generator)
    return Batch({"x": x, "weight": weight, "dy": dy}, {"eps": EPS}, ("x", "dy"))


def rms_norm_grad_weight(
    shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int
) -> Batch:
    """dw [rows] = Σ dy·x/rms(x) over k tokens; a token has as many elements as the weight."""
    generator = _generator(seed)
    x = _neutral(kind, torch.ones(shape.k, rows), generator).to(dtype)
    dy = kinds.values(kind, rows, shape.k, dtype, generator).T.contiguous()
    weight = torch.ones(rows, dtype=dtype)
    return Batch({"x": x, "weight": weight, "dy": dy}, {"eps": EPS, "micro_batch": None}, ())


def softmax_grad_x(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    """Of softmax and of log_softmax."""
    generator = _generator(seed)
    x = _neutral(kind, torch.zeros(rows, shape.k), generator).to(dtype)
    dy = _row_gradient(kind, rows, shape.k, dtype, generator)
    return Batch({"x": x, "dy": dy}, {"dim": -1}, ("x", "dy"))


def attention_grad(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    """Of whole prompts of k tokens: dq, dk and dv, side by side along the heads."""
    generator = _generator(seed)
    x, key, value = (
        torch.randn(rows, shape.k, heads, shape.n, generator=generator).to(dtype)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    dy = kinds.values(kind, rows * HEADS * shape.n, shape.k, dtype, generator)
    dy = dy.view(rows, HEADS, shape.n, shape.k).permute(0, 3, 1, 2).contiguous()
    inputs = {"x": x, "key": key, "value": value, "dy": dy}
    return Batch(inputs, {}, tuple(inputs))


def _factors(
    rows: int, n: int, k: int, dtype: torch.dtype, kind: str, generator: Generator
) -> tuple[Tensor, Tensor]:
    """[rows, k] and [n, k], whose products are summed along k."""
    left = kinds.values(kind, rows, k, dtype, generator)
    if kind == kinds.CANCELLING:
        return left, kinds.paired(n, k, dtype, generator)
    own = kinds.NORMAL if kind == kinds.ACTIVATIONS else kind
    return left, kinds.values(own, n, k, dtype, generator)


def _neutral(kind: str, plain: Tensor, generator: Generator) -> Tensor:
    """What leaves cancelling terms cancelling; for the other kinds normal values."""
    return plain if kind == kinds.CANCELLING else torch.randn(plain.shape, generator=generator)


def _row_gradient(kind: str, rows: int, k: int, dtype: torch.dtype, generator: Generator) -> Tensor:
    """dy: of CANCELLING every other element is 0, where the result is the rounding error alone."""
    if kind != kinds.CANCELLING:
        return kinds.values(kind, rows, k, dtype, generator)
    dy = torch.zeros(rows, k, dtype=dtype)
    dy[:, ::2] = kinds.cancelling(rows, -(-k // 2), dtype, generator)
    return dy


def _generator(seed: int) -> Generator:
    return Generator().manual_seed(seed)
