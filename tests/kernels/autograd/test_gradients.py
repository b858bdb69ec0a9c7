"""Gradients of every op against float64 autograd of the plain formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from driftscope_kernels import ops
from driftscope_kernels.options import LogprobOptions, NormOptions, RotaryOptions, SwigluOptions

EPS = 1e-5
TEMPERATURE = 0.7
# Gradients are sums of up to ROWS or K products; relative to the largest element of the gradient.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
# One rounding per op, so that the plain formula on the same inputs is what is computed.
NORM = NormOptions(weight_multiply="before_cast", norm_reads="float32_sum")
SWIGLU = SwigluOptions(silu="float32")
ROTARY = RotaryOptions(table="as_given", arithmetic="fused")
LOGITS = LogprobOptions(logits="float32")

COS, SIN = (f(torch.arange(12.0).view(3, 4)) for f in (torch.cos, torch.sin))
TARGETS = torch.tensor([3, 0, 599, 512, 17])

Function = Callable[..., "Tensor | tuple[Tensor, ...]"]


@dataclass(frozen=True)
class Case:
    ours: Function
    plain: Function
    shapes: tuple[tuple[int, ...], ...]


def plain_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + EPS).rsqrt() * weight


def plain_rotary(q: Tensor, k: Tensor) -> tuple[Tensor, ...]:
    c, s = COS.double()[:, None], SIN.double()[:, None]
    halves = [x.chunk(2, dim=-1) for x in (q, k)]
    return tuple(torch.cat([a * c - b * s, b * c + a * s], dim=-1) for a, b in halves)


def plain_interleaved(q: Tensor, k: Tensor) -> tuple[Tensor, ...]:
    c, s = COS.double()[:, None], SIN.double()[:, None]
    pairs = [(x[..., ::2], x[..., 1::2]) for x in (q, k)]
    return tuple(torch.stack([a * c - b * s, b * c + a * s], -1).flatten(-2) for a, b in pairs)


def our_logprob(hidden: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    got = ops.token_logprob(
        hidden, weight, TARGETS, temperature=TEMPERATURE, entropy=True, options=LOGITS
    )
    assert got.entropy is not None
    return got.logprob, got.entropy


def plain_logprob(hidden: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    logp = torch.log_softmax(hidden @ weight.T / TEMPERATURE, -1)
    return logp.gather(1, TARGETS[:, None])[:, 0], -(logp.exp() * logp).sum(-1)


CASES: dict[str, Case] = {
    "linear": Case(ops.linear, functional.linear, ((2, 5, 20), (7, 20), (7,))),
    "matmul": Case(ops.matmul, torch.matmul, ((5, 20), (20, 7))),
    "linear_tp8": Case(
        lambda x, w: ops.linear(x, w, tp_segments=8), functional.linear, ((5, 16), (7, 16))
    ),
    "bmm": Case(ops.bmm, torch.bmm, ((3, 4, 5), (3, 5, 6))),
    "rms_norm": Case(
        lambda x, w: ops.rms_norm(x, w, EPS, options=NORM), plain_norm, ((3, 5, 20), (20,))
    ),
    "add_rms_norm": Case(
        lambda x, r, w: ops.add_rms_norm(x, r, w, EPS, options=NORM),
        lambda x, r, w: (plain_norm(x + r, w), x + r),
        ((3, 5, 20), (3, 5, 20), (20,)),
    ),
    "swiglu": Case(
        lambda g, u: ops.swiglu(g, u, options=SWIGLU),
        lambda g, u: functional.silu(g) * u,
        ((5, 20), (5, 20)),
    ),
    "rotary": Case(
        lambda q, k: ops.rotary(q, k, COS, SIN, options=ROTARY),
        plain_rotary,
        ((3, 2, 8), (3, 1, 8)),
    ),
    "rotary_interleaved": Case(
        lambda q, k: ops.rotary(q, k, COS, SIN, interleaved=True, options=ROTARY),
        plain_interleaved,
        ((3, 2, 8), (3, 1, 8)),
    ),
    "token_logprob": Case(our_logprob, plain_logprob, ((5, 6), (600, 6))),
    "sum_all": Case(ops.sum, torch.sum, ((4, 5),)),
    "mean_two": Case(lambda x: ops.mean(x, (2, 0)), lambda x: torch.mean(x, (2, 0)), ((3, 4, 5),)),
    "mean_keepdim": Case(
        lambda x: ops.mean(x, -2, keepdim=True),
        lambda x: torch.mean(x, -2, keepdim=True),
        ((3, 4, 5),),
    ),
}
for _name in ("softmax", "log_softmax", "logsumexp", "sum", "mean"):
    for _dim in (0, 1, -1):
        CASES[f"{_name}_{_dim}"] = Case(
            partial(getattr(ops, _name), dim=_dim),
            partial(getattr(torch, _name), dim=_dim),
            ((3, 4, 17),),
        )


def gradients(function: Function, inputs: list[Tensor]) -> list[Tensor]:
    """Of a weighted sum of all results, with weights that 16 bits hold exactly."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    result = function(*leaves)
    results = result if isinstance(result, tuple) else (result,)
    weights = [((torch.arange(y.numel()) % 13 - 6) / 8).view(y.shape).to(y.dtype) for y in results]
    return list(torch.autograd.grad(results, leaves, weights))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_float64(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator).to(dtype) for shape in case.shapes]
    ours = gradients(case.ours, inputs)
    exact = gradients(case.plain, [x.double() for x in inputs])
    for x, got, expected in zip(inputs, ours, exact, strict=True):
        assert got.dtype == dtype and got.shape == x.shape
        error = (got.double() - expected).abs().max()
        assert error <= TOLERANCE[dtype] * expected.abs().max()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "name", ["linear", "rms_norm", "add_rms_norm", "swiglu", "softmax_-1", "log_softmax_-1"]
)
def test_the_gradient_of_a_row_is_the_same_in_every_batch(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(shape, generator=generator).to(dtype) for shape in case.shapes]
    rows = inputs[0].shape[:-1]
    is_row_input = [x.shape[:-1] == rows for x in inputs]

    def dx(batch: list[Tensor]) -> Tensor:
        leaves = [x.clone().requires_grad_() for x in batch]
        result = case.ours(*leaves)
        results = result if isinstance(result, tuple) else (result,)
        return torch.autograd.grad([y.float().square().sum() for y in results], leaves[0])[0]

    whole = dx(inputs)
    for row in range(rows[0]):
        part = slice(row, row + 1)
        one = [x[part] if r else x for x, r in zip(inputs, is_row_input, strict=True)]
        assert torch.equal(dx(one), whole[part])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_gradient_of_a_hidden_state_is_the_same_in_every_batch(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    hidden, weight = (torch.randn(n, 6, generator=generator).to(dtype) for n in (5, 600))

    def dhidden(rows: slice) -> Tensor:
        leaf = hidden[rows].clone().requires_grad_()
        got = ops.token_logprob(leaf, weight, TARGETS[rows], entropy=True)
        assert got.entropy is not None
        return torch.autograd.grad(got.logprob.sum() + got.entropy.sum(), leaf)[0]

    whole = dhidden(slice(None))
    for row in range(5):
        assert torch.equal(dhidden(slice(row, row + 1)), whole[row : row + 1])


def test_a_second_derivative_is_refused() -> None:
    x = torch.ones(2, 4, requires_grad=True)
    (dx,) = torch.autograd.grad(ops.softmax(x, -1).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(dx.sum())
