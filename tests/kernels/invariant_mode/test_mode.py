"""What a block of invariant mode touches: this thread while it lasts, and nothing else."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from driftscope_kernels import ops
from driftscope_kernels.invariant_mode import InvariantModeError, invariant_mode

X = torch.randn(5, 400, generator=torch.Generator().manual_seed(0))
W = torch.randn(16, 400, generator=torch.Generator().manual_seed(1))


def stock_and_ours() -> tuple[Tensor, Tensor]:
    """They differ, or the tests below would see nothing."""
    stock, ours = F.linear(X, W), ops.linear(X, W)
    assert not torch.equal(stock, ours)
    return stock, ours


def test_functions_are_ours_inside_and_torchs_own_after() -> None:
    stock, ours = stock_and_ours()
    with invariant_mode():
        assert torch.equal(F.linear(X, W), ours)
    assert torch.equal(F.linear(X, W), stock)


def test_an_exception_restores_everything() -> None:
    stock, _ = stock_and_ours()
    with pytest.raises(KeyError), invariant_mode():
        raise KeyError
    assert torch.equal(F.linear(X, W), stock)


def test_blocks_nest_and_each_counts_its_own() -> None:
    _, ours = stock_and_ours()
    with invariant_mode() as outer:
        F.linear(X, W)
        with invariant_mode() as inner:
            F.linear(X, W)
        assert torch.equal(F.linear(X, W), ours)
    assert (outer.coverage().routed["linear"], inner.coverage().routed["linear"]) == (3, 1)


def in_a_thread(product: Callable[[], Tensor]) -> Tensor:
    """A new thread may sum in another number of OpenMP threads than the main one."""
    seen: list[Tensor] = []
    thread = threading.Thread(target=lambda: seen.append(product()))
    thread.start()
    thread.join()
    return seen[0]


def test_other_threads_go_on_as_before() -> None:
    stock = in_a_thread(lambda: F.linear(X, W))
    with invariant_mode() as mode:
        seen = in_a_thread(lambda: F.linear(X, W))
    assert torch.equal(seen, stock)
    assert mode.coverage().routed == {}


def test_a_block_in_another_thread_does_not_reach_this_one() -> None:
    stock, ours = stock_and_ours()
    entered, leave = threading.Event(), threading.Event()
    seen: list[Tensor] = []

    def run() -> None:
        with invariant_mode():
            entered.set()
            leave.wait(10)
            seen.append(F.linear(X, W))

    thread = threading.Thread(target=run)
    thread.start()
    assert entered.wait(10)
    here = F.linear(X, W)
    leave.set()
    thread.join()
    assert torch.equal(here, stock) and torch.equal(seen[0], ours)


def gradient(backward_inside: bool) -> Tensor:
    x, w = X.clone().requires_grad_(), W.clone().requires_grad_()
    with invariant_mode():
        loss = F.linear(x, w).square().sum()
        if backward_inside:
            loss.backward()  # type: ignore[no-untyped-call]
    if not backward_inside:
        loss.backward()  # type: ignore[no-untyped-call]
    assert w.grad is not None
    return w.grad


def test_the_gradients_of_our_functions_are_ours_after_the_block_too() -> None:
    assert torch.equal(gradient(True), gradient(False))


def test_an_exception_in_an_inner_block_leaves_the_outer_one() -> None:
    stock, ours = stock_and_ours()
    with invariant_mode() as outer:
        with pytest.raises(InvariantModeError), invariant_mode():
            F.dropout(X, 0.5, training=True)
        assert torch.equal(F.linear(X, W), ours)
    assert outer.coverage().routed == {"linear": 1}
    assert torch.equal(F.linear(X, W), stock)


def test_another_model_has_its_bits_before_beside_and_after(build: Callable[..., Any]) -> None:
    trained, other = build("llama"), build("qwen3")
    ids = torch.arange(40)[None]
    before = in_a_thread(lambda: other(ids).logits)
    with invariant_mode():
        trained(ids).logits.sum().backward()
        beside = in_a_thread(lambda: other(ids).logits)
    assert torch.equal(beside, before)
    assert torch.equal(in_a_thread(lambda: other(ids).logits), before)
    assert not trained._forward_hooks and not trained._forward_pre_hooks


def test_dropout_is_refused_in_training_only() -> None:
    with invariant_mode():
        with pytest.raises(InvariantModeError, match="place in the batch"):
            F.dropout(X, 0.1, training=True)
        with pytest.raises(InvariantModeError, match="attention_dropout"):
            q = X.reshape(1, 1, 5, 400)
            F.scaled_dot_product_attention(q, q, q, dropout_p=0.5)
        assert torch.equal(F.dropout(X, 0.1, training=False), X)
        assert torch.equal(F.dropout(X, 0.0, training=True), X)


def test_autocast_casts_as_torch_does() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), invariant_mode():
        y = F.linear(X, W)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, ops.linear(X.bfloat16(), W.bfloat16()))


# Places that are named twice, so that their values are added.
Z, ONE, PLACES = torch.zeros(5, 5), torch.ones(()), torch.tensor([1, 1])
UNCOVERED: dict[str, Callable[[], Any]] = {
    "aten.convolution": lambda: F.conv1d(X[None], torch.ones(2, 5, 3)),
    "aten.cumsum": lambda: X.cumsum(0),
    "aten.mm": lambda: X.double() @ W.double().t(),
    "aten.linalg_vector_norm": lambda: X.norm(),
    "aten.index_put_": lambda: Z.index_put_((PLACES[:, None],), ONE, accumulate=True),
    "aten.scatter": lambda: torch.scatter(Z, 1, PLACES[:, None], 1.0, reduce="add"),
}


@pytest.mark.parametrize("name", UNCOVERED)
def test_what_is_not_covered_is_said(name: str) -> None:
    with invariant_mode() as mode:
        UNCOVERED[name]()
    assert mode.coverage().stock == {name: 1}


def test_a_mask_names_every_place_once() -> None:
    x = X.clone().requires_grad_()
    with invariant_mode() as mode:
        x[X > 0].sum().backward()  # type: ignore[no-untyped-call]
    assert mode.coverage().row_by_row["aten.index_put"] == 1
    assert mode.coverage().stock == {}
