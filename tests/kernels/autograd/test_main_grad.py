"""What holds of weight gradients when a batch is cut into micro-batches, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from driftscope_kernels import ops
from driftscope_kernels.ops import ArgumentError, attach_main_grad
from driftscope_kernels.options import ROW_BLOCK

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ROWS, WIDTH = 4 * ROW_BLOCK, 6
CUTS = (
    (ROWS,),
    (ROW_BLOCK,) * 4,
    (3 * ROW_BLOCK, ROW_BLOCK),
    (ROW_BLOCK, 2 * ROW_BLOCK, ROW_BLOCK),
)
TARGETS = torch.arange(ROWS) % 40

Loss = Callable[[Tensor, Tensor, slice], Tensor]


def linear(x: Tensor, weight: Tensor, rows: slice) -> Tensor:
    return ops.linear(x, weight).float().square().sum()


def token_logprob(x: Tensor, weight: Tensor, rows: slice) -> Tensor:
    return ops.token_logprob(x, weight, TARGETS[rows]).logprob.sum()


LOSSES: dict[str, tuple[Loss, tuple[int, ...]]] = {
    "linear": (linear, (5, WIDTH)),
    "token_logprob": (token_logprob, (40, WIDTH)),
}


def gradient(
    loss: Loss, x: Tensor, weight: Tensor, cut: tuple[int, ...], main_grad: bool
) -> Tensor:
    """After one backward pass per micro-batch."""
    parameter = torch.nn.Parameter(weight.clone())
    total = attach_main_grad(parameter) if main_grad else None
    start = 0
    for rows in cut:
        part = slice(start, start + rows)
        torch.autograd.backward(loss(x[part], parameter, part))
        start += rows
    if total is not None:
        assert parameter.grad is None
        return total
    assert parameter.grad is not None
    return parameter.grad


def case(name: str, dtype: torch.dtype) -> tuple[Loss, Tensor, Tensor]:
    loss, shape = LOSSES[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, WIDTH, generator=generator).to(dtype)
    return loss, x, torch.randn(shape, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_with_main_grad_every_cut_at_whole_blocks_gives_the_same_bits(
    name: str, dtype: torch.dtype
) -> None:
    loss, x, weight = case(name, dtype)
    whole = gradient(loss, x, weight, CUTS[0], main_grad=True)
    for cut in CUTS:
        assert torch.equal(gradient(loss, x, weight, cut, main_grad=True), whole)
    by_autograd = gradient(loss, x, weight, CUTS[0], main_grad=False)
    assert torch.equal(whole.to(dtype), by_autograd)


@pytest.mark.parametrize("name", LOSSES)
def test_without_it_float32_and_single_blocks_after_the_first_give_the_same_bits(
    name: str,
) -> None:
    loss, x, weight = case(name, torch.float32)
    whole = gradient(loss, x, weight, CUTS[0], main_grad=False)
    for cut in CUTS[:3]:
        assert torch.equal(gradient(loss, x, weight, cut, main_grad=False), whole)


def test_without_it_other_cuts_do_not() -> None:
    """The control, for what the documentation does not promise."""
    loss, x, weight = case("linear", torch.float32)
    whole = gradient(loss, x, weight, CUTS[0], main_grad=False)
    halves = gradient(loss, x, weight, (2 * ROW_BLOCK, 2 * ROW_BLOCK), main_grad=False)
    assert not torch.equal(halves, whole)
    loss, x, weight = case("linear", torch.bfloat16)
    whole = gradient(loss, x, weight, CUTS[0], main_grad=False)
    assert not torch.equal(gradient(loss, x, weight, CUTS[1], main_grad=False), whole)


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_and_biases_keep_the_promise_too(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    x, residual = (torch.randn(ROWS, WIDTH, generator=generator).to(dtype) for _ in range(2))
    vector = torch.randn(WIDTH, generator=generator).to(dtype)
    matrix = torch.randn(WIDTH, WIDTH, generator=generator).to(dtype)

    def after(cut: tuple[int, ...]) -> list[Tensor]:
        weight, fused, bias = (torch.nn.Parameter(vector.clone()) for _ in range(3))
        totals = [attach_main_grad(parameter) for parameter in (weight, fused, bias)]
        for a, b in zip(torch.split(x, list(cut)), torch.split(residual, list(cut)), strict=True):
            normed, total = ops.add_rms_norm(a, b, fused, 1e-6)
            y = ops.linear(ops.rms_norm(total, weight, 1e-6), matrix, bias)
            torch.autograd.backward(y.float().square().sum() + normed.float().square().sum())
        return totals

    whole = after(CUTS[0])
    for cut in CUTS[1:]:
        for got, expected in zip(after(cut), whole, strict=True):
            assert torch.equal(got, expected)


def test_a_main_grad_that_does_not_fit_is_refused() -> None:
    parameter = torch.nn.Parameter(torch.ones(2, 3))
    attach_main_grad(parameter).data = torch.zeros(2, 3, dtype=torch.bfloat16)
    loss = ops.linear(torch.ones(1, 3), parameter).sum()
    with pytest.raises(ArgumentError, match="main_grad is torch.bfloat16"):
        torch.autograd.backward(loss)
