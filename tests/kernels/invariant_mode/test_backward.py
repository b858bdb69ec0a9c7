"""Backward passes inside a block: forward passes that run within them are ours, however begun."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from driftscope_kernels.invariant_mode import invariant_mode

X = torch.randn(5, 400, generator=torch.Generator().manual_seed(0))
W = torch.randn(16, 400, generator=torch.Generator().manual_seed(1))


def two_layers(t: Tensor) -> Tensor:
    return F.linear(F.linear(t, W), W.t()).square()


def _grad(loss: Tensor, x: Tensor) -> None:
    (x.grad,) = torch.autograd.grad(loss, x)


BACKWARDS: dict[str, Callable[[Tensor, Tensor], None]] = {
    "loss.backward()": lambda loss, x: loss.backward(),  # type: ignore[no-untyped-call]
    "loss.backward(inputs=)": lambda loss, x: loss.backward(inputs=[x]),  # type: ignore[no-untyped-call]
    "autograd.backward": lambda loss, x: torch.autograd.backward([loss]),
    "autograd.grad": _grad,
}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", BACKWARDS)
def test_gradient_checkpointing_recomputes_with_our_kernels(name: str, reentrant: bool) -> None:
    if reentrant and name in ("autograd.grad", "loss.backward(inputs=)"):
        pytest.skip("torch refuses it")
    x = X.clone().requires_grad_()
    with invariant_mode() as mode:
        (plain,) = torch.autograd.grad(two_layers(x).sum(), x)
        before = mode.coverage().routed["linear"]
        BACKWARDS[name](checkpoint(two_layers, x, use_reentrant=reentrant).sum(), x)
    assert mode.coverage().routed["linear"] - before == 4
    assert "aten.mm" not in mode.coverage().routed
    assert x.grad is not None and torch.equal(x.grad, plain)


def test_gradients_that_torch_must_make_itself_are_still_made() -> None:
    x = X.clone().requires_grad_()
    both = torch.eye(2)
    with invariant_mode():
        y = F.linear(x, W).square().sum(0)[:2]
        (found,) = torch.autograd.grad(y, x, both, is_grads_batched=True, retain_graph=True)
        rows = [torch.autograd.grad(y, x, start, retain_graph=True)[0] for start in both]
        (unused,) = torch.autograd.grad(y.sum(), W.clone().requires_grad_(), allow_unused=True)
    torch.testing.assert_close(found, torch.stack(rows))
    assert unused is None
