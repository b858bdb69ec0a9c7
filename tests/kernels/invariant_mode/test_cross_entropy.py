"""Cross entropy: as torch has it, in every reduction, and no sum of it left to torch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from driftscope_kernels.invariant_mode import invariant_mode

X = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([1, 0, 5, 2])
WEIGHTS = torch.linspace(0.5, 2, 10)
CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: F.cross_entropy(x, LABELS),
    "ignored": lambda x: F.cross_entropy(x, LABELS, ignore_index=0),
    "sum": lambda x: F.cross_entropy(x, LABELS, reduction="sum"),
    "none": lambda x: F.cross_entropy(x, LABELS, reduction="none"),
    "one row": lambda x: F.cross_entropy(x[0], LABELS[0]),
    "one row, none": lambda x: F.cross_entropy(x[0], LABELS[0], reduction="none"),
    "class weights": lambda x: F.cross_entropy(x, LABELS, WEIGHTS.to(x.dtype)),
    "smoothed": lambda x: F.cross_entropy(x, LABELS, label_smoothing=0.1),
    "three dimensions": lambda x: F.cross_entropy(x[:, :, None], LABELS[:, None]),
}
#: Their sum over labels is torch's own, and said to be.
STOCK = ("class weights", "smoothed", "three dimensions")


def outcome(call: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    y = call(leaf)
    (gradient,) = torch.autograd.grad(y.sum(), leaf)
    return y, gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CALLS)
def test_value_and_gradient_are_near_torchs(name: str, dtype: torch.dtype) -> None:
    x = X.to(dtype)
    stock = outcome(CALLS[name], x)
    with invariant_mode() as mode:
        ours = outcome(CALLS[name], x)
    near: dict[str, Any] = {"rtol": 4 * torch.finfo(dtype).eps, "atol": torch.finfo(dtype).eps}
    for one, other in zip(ours, stock, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, **near)
    assert bool(mode.coverage().stock) == (name in STOCK)


def test_labels_alone_decide_what_is_counted() -> None:
    with invariant_mode():
        assert bool(F.cross_entropy(X, torch.zeros_like(LABELS), ignore_index=0).isnan())
        with pytest.raises(RuntimeError, match="out of bounds"):
            F.cross_entropy(X, LABELS + 5)
        with pytest.raises(ValueError, match="avg is not a valid value for reduction"):
            F.cross_entropy(X, LABELS, reduction="avg")


def test_the_losses_of_rows_do_not_depend_on_the_batch() -> None:
    with invariant_mode():
        whole = F.cross_entropy(X, LABELS, reduction="none")
        alone = [F.cross_entropy(X[i : i + 1], LABELS[i : i + 1]) for i in range(4)]
    assert torch.equal(torch.stack(alone), whole)
