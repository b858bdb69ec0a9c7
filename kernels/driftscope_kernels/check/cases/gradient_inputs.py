"""Inputs of the gradients that can be checked: the forward pass's, and dy, which comes from above.

In: shape, rows, dtype, kind, seed. Out: Batch. Of a row gradient "x" and "dy" are cut into rows; a
weight gradient has k tokens, and the rows are those of the weight.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from driftscope_kernels.check.cases import case as kinds
from driftscope_kernels.check.cases import op_inputs
from driftscope_kernels.check.cases.case import EPS, HEADS, KV_HEADS, Shape
from driftscope_kernels.check.cases.op_inputs import generator, sensitive_rows
from driftscope_kernels.check.placements.placement import Batch

#: Inputs of a linear layer of which only the bias is looked at.
BIAS_WIDTH = 8
#: Factors of two do not change what is rounded, and rows with other ones are still not alike.
POWERS = 3


def linear_grad_x(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    """dX [rows, n] = dy [rows, k] · weight [k, n]: the reduction runs over the layer's outputs."""
    random = generator(seed)
    dy, turned = _factors(rows, shape.n, shape.k, dtype, kind, random)
    x = torch.randn(rows, shape.n, generator=random).to(dtype)
    return Batch({"x": x, "weight": turned.T.contiguous(), "dy": dy}, {}, ("x", "dy"))


def linear_grad_weight(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    """dW [rows, n] = dyᵀ · x, over k tokens."""
    random = generator(seed)
    dy, x = _factors(rows, shape.n, shape.k, dtype, kind, random)
    weight = torch.randn(rows, shape.n, generator=random).to(dtype)
    inputs = {"x": x.T.contiguous(), "weight": weight, "dy": dy.T.contiguous()}
    return Batch(inputs, {"micro_batch": None}, ())


def linear_grad_bias(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    """db [rows] = Σ dy over k tokens."""
    random = generator(seed)
    x, weight = (
        torch.randn(count, BIAS_WIDTH, generator=random).to(dtype) for count in (shape.k, rows)
    )
    dy = kinds.values(kind, rows, shape.k, dtype, random).T.contiguous()
    inputs = {"x": x, "weight": weight, "bias": torch.zeros(rows, dtype=dtype), "dy": dy}
    return Batch(inputs, {"micro_batch": None}, ())


def bmm_grad_x(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    """dX [rows, R, n] = dy [rows, R, k] · weight [rows, n, k]ᵀ."""
    factors = op_inputs.batched_matrix(shape, rows, dtype, kind, seed).inputs
    dy, weight = factors["x"], factors["weight"].transpose(1, 2).contiguous()
    x = torch.randn(*dy.shape[:2], shape.n, generator=generator(seed)).to(dtype)
    inputs = {"x": x, "weight": weight, "dy": dy}
    return Batch(inputs, {}, tuple(inputs))


def bmm_grad_weight(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    """dW [rows, R, n] = xᵀ [rows, R, k] · dy [rows, k, n], over the k rows of each matrix."""
    factors = op_inputs.batched_matrix(shape, rows, dtype, kind, seed).inputs
    x, dy = factors["x"].transpose(1, 2).contiguous(), factors["weight"]
    weight = torch.randn(rows, x.shape[2], shape.n, generator=generator(seed)).to(dtype)
    inputs = {"x": x, "weight": weight, "dy": dy}
    return Batch(inputs, {}, tuple(inputs))


def rms_norm_grad_x(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    random = generator(seed)
    x = _neutral(kind, torch.ones(rows, shape.k), random).to(dtype)
    weight = _neutral(kind, torch.ones(shape.k), random).to(dtype)
    dy = _row_gradient(kind, rows, shape.k, dtype, random)
    return Batch({"x": x, "weight": weight, "dy": dy}, {"eps": EPS}, ("x", "dy"))


def rms_norm_grad_weight(
    shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int
) -> Batch:
    """dw [rows] = Σ dy·x/rms(x) over k tokens; a token has as many elements as the weight."""
    random = generator(seed)
    x = _neutral(kind, torch.ones(shape.k, rows), random).to(dtype)
    dy = kinds.values(kind, rows, shape.k, dtype, random).T.contiguous()
    weight = torch.ones(rows, dtype=dtype)
    return Batch({"x": x, "weight": weight, "dy": dy}, {"eps": EPS, "micro_batch": None}, ())


def add_rms_norm_grad_x(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    """Gradient of x, equal to the residual's; dy of the norm is joined with dy of the sum."""
    batch = rms_norm_grad_x(shape, rows, dtype, kind, seed)
    inputs = _halved(batch.inputs, kind, seed)
    return Batch(inputs, batch.params, ("x", "residual", "dy"))


def add_rms_norm_grad_weight(
    shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int
) -> Batch:
    batch = rms_norm_grad_weight(shape, rows, dtype, kind, seed)
    return Batch(_halved(batch.inputs, kind, seed), batch.params, ())


def _halved(inputs: Mapping[str, Tensor], kind: str, seed: int) -> dict[str, Tensor]:
    """x as the sum of two halves; dy of that sum is 0 where the result is rounding error alone."""
    dy, half = inputs["dy"], inputs["x"] / 2
    dsum = _neutral(kind, torch.zeros(dy.shape), generator(seed + 1)).to(dy.dtype)
    return {**inputs, "x": half, "residual": half, "dy": torch.cat([dy, dsum], dim=-1)}


def softmax_grad_x(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    """Inputs for the gradient of softmax and log_softmax."""
    random = generator(seed)
    x = _neutral(kind, torch.zeros(rows, shape.k), random).to(dtype)
    dy = _row_gradient(kind, rows, shape.k, dtype, random)
    return Batch({"x": x, "dy": dy}, {"dim": -1}, ("x", "dy"))


def logsumexp_grad_x(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    """dX = dy·softmax(x): a row of x, a number of dy."""
    batch = op_inputs.exponentials(shape, rows, dtype, kind, seed)
    dy = torch.randn(rows, generator=generator(seed + 1))
    if kind in (kinds.SENSITIVE, kinds.ABSORBING):
        dy = 2.0 ** (torch.arange(rows) % POWERS)
    return Batch({**batch.inputs, "dy": dy.to(dtype)}, batch.params, ("x", "dy"))


def swiglu_grad(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    """Gradients of gate and up, side by side."""
    if kind == kinds.SENSITIVE:
        x = sensitive_rows("swiglu.grad", shape, rows, shape.k, dtype, seed, _gate_up_and_dy)
    else:
        x = kinds.values(kind, rows, shape.k, dtype, generator(seed))
    inputs = _gate_up_and_dy(x)
    return Batch(inputs, {}, tuple(inputs))


def _gate_up_and_dy(x: Tensor) -> Mapping[str, Tensor]:
    return {**op_inputs.gate_and_up(x), "dy": x.roll(2, -1)}


def rotary_grad(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    """Gradients of queries, then keys: dy rotated back. With the opposite angle, that is the
    rotation the rows were chosen for.
    """
    forward = op_inputs.rotated(shape, rows, dtype, kind, seed).inputs
    dy = torch.cat([forward["x"], forward["key"]], dim=1)
    inputs = {**forward, "sin": -forward["sin"], "dy": dy}
    return Batch(inputs, {}, tuple(inputs))


def token_logprob_grad_x(
    shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int
) -> Batch:
    """dX = Σ dy·(1[v = target] − p)·weight[v] over a vocabulary of n, K is the hidden width."""
    random = generator(seed)
    dy = torch.randn(rows, generator=random)
    if kind != kinds.CANCELLING:
        batch = op_inputs.token_logprob(shape, rows, dtype, kind, seed)
        return Batch({**batch.inputs, "dy": dy}, {}, ("x", "targets", "dy"))
    # Equal probabilities, and the row of the target adds nothing.
    pairs = max(0, shape.n - 1) // 2 * 2
    weight = torch.zeros(shape.n, shape.k, dtype=dtype)
    weight[:pairs] = kinds.cancelling(shape.k, pairs, dtype, random).T
    x, targets = torch.zeros(rows, shape.k, dtype=dtype), torch.full((rows,), shape.n - 1)
    inputs = {"x": x, "weight": weight, "targets": targets, "dy": dy}
    return Batch(inputs, {}, ("x", "targets", "dy"))


def token_logprob_grad_weight(
    shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int
) -> Batch:
    """dW [rows, n] over k tokens; the rows are the vocabulary."""
    random = generator(seed)
    x = kinds.values(kind, shape.n, shape.k, dtype, random).T.contiguous()
    weight = torch.randn(rows, shape.n, generator=random).to(dtype)
    targets = torch.randint(0, rows, (shape.k,), generator=random)
    dy = torch.randn(shape.k, generator=random)
    if kind == kinds.CANCELLING:  # the same slope at every token
        weight, targets, dy = torch.zeros_like(weight), targets * 0, torch.ones(shape.k)
    inputs = {"x": x, "weight": weight, "targets": targets, "dy": dy}
    return Batch(inputs, {"micro_batch": None}, ())


def attention_grad(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    """Gradients of whole prompts of k tokens: dq, dk and dv, side by side along the heads."""
    random = generator(seed)
    x, key, value = (
        torch.randn(rows, shape.k, heads, shape.n, generator=random).to(dtype)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    dy = kinds.values(kind, rows * HEADS * shape.n, shape.k, dtype, random)
    dy = dy.view(rows, HEADS, shape.n, shape.k).permute(0, 3, 1, 2).contiguous()
    inputs = {"x": x, "key": key, "value": value, "dy": dy}
    return Batch(inputs, {}, tuple(inputs))


def _factors(
    rows: int, n: int, k: int, dtype: torch.dtype, kind: str, random: Generator
) -> tuple[Tensor, Tensor]:
    """[rows, k] and [n, k], whose products are summed along k."""
    left = kinds.values(kind, rows, k, dtype, random)
    if kind == kinds.CANCELLING:
        return left, kinds.paired(n, k, dtype, random)
    own = kinds.NORMAL if kind == kinds.ACTIVATIONS else kind
    return left, kinds.values(own, n, k, dtype, random)


def _neutral(kind: str, plain: Tensor, random: Generator) -> Tensor:
    """What leaves cancelling terms cancelling; for the other kinds normal values."""
    return plain if kind == kinds.CANCELLING else torch.randn(plain.shape, generator=random)


def _row_gradient(kind: str, rows: int, k: int, dtype: torch.dtype, random: Generator) -> Tensor:
    """dy: of CANCELLING every other element is 0, where the result is the rounding error alone."""
    if kind != kinds.CANCELLING:
        return kinds.values(kind, rows, k, dtype, random)
    dy = torch.zeros(rows, k, dtype=dtype)
    dy[:, ::2] = kinds.cancelling(rows, -(-k // 2), dtype, random)
    return dy
