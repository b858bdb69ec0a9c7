"""Every torch function that is taken over: close to torch's own, value and gradients."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from driftscope_kernels import ops
from driftscope_kernels.invariant_mode import invariant_mode

A = torch.randn(4, 6, 10, generator=torch.Generator().manual_seed(0))
B = torch.randn(4, 10, 7, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([1, 0, 5, 2])
IDS = torch.tensor([[0, 2, 2], [5, 1, 2]])
ENDS = torch.tensor([2, 2, 5, 6], dtype=torch.int32)


def _eights(b: Tensor) -> Tensor:
    """[4, 8, 8]"""
    return F.pad(b[:, :8], (0, 1))


# Name in the coverage, then what is called with A and B.
CALLS: list[tuple[str, Callable[[Tensor, Tensor], Tensor]]] = [
    ("linear", lambda a, b: F.linear(a, b[0].t(), b[1, 0])),
    ("matmul", lambda a, b: a @ b),
    ("matmul", lambda a, b: torch.matmul(a[:, None], b[None])),
    ("matmul", lambda a, b: a @ b[0]),
    ("matmul", lambda a, b: a[0].mm(b[0])),
    ("matmul", lambda a, b: torch.bmm(a, b)),
    ("aten.bmm", lambda a, b: torch.einsum("bmk,bkn->bmn", a, b)),
    ("aten.addmm", lambda a, b: torch.addmm(b[1, 0], a[0], b[0])),
    ("aten.mv", lambda a, b: torch.mv(a[0], b[0, :, 0])),
    ("aten.dot", lambda a, b: torch.dot(a[0, 0], b[0, :, 0])),
    # torch wants rows and columns of multiples of 16 bytes.
    ("grouped_mm", lambda a, b: F.grouped_mm(a[0, :, :8].clone(), _eights(b), offs=ENDS)),
    ("softmax", lambda a, b: F.softmax(a, dim=-1, dtype=torch.float32)),
    ("softmax", lambda a, b: a.softmax(1)),
    ("log_softmax", lambda a, b: torch.log_softmax(a, 2)),
    ("logsumexp", lambda a, b: torch.logsumexp(a, -1, keepdim=True)),
    ("cross_entropy", lambda a, b: F.cross_entropy(a[:, 0], LABELS)),
    ("silu", lambda a, b: F.silu(a)),
    ("rms_norm", lambda a, b: F.rms_norm(a, (10,), b[0, :, 0], eps=1e-5)),
    ("embedding", lambda a, b: F.embedding(IDS, a[0])),
    ("embedding", lambda a, b: F.embedding(IDS, a[0], padding_idx=-1)),
    ("aten.mean", lambda a, b: a.mean()),
    ("aten.mean", lambda a, b: a.mean(-1, keepdim=True)),
    ("aten.sum", lambda a, b: a.sum((0, 2))),
    ("aten.sum", lambda a, b: a.sum()),
]


def outcome(call: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    y = call(a, b)
    torch.autograd.backward((y * torch.linspace(1, 2, y.numel()).reshape(y.shape)).sum())
    return [y, *(torch.zeros_like(x) if x.grad is None else x.grad for x in (a, b))]


@pytest.mark.parametrize(("name", "call"), CALLS)
def test_value_and_gradients(name: str, call: Callable[[Tensor, Tensor], Tensor]) -> None:
    stock = outcome(call)
    with invariant_mode() as mode:
        ours = outcome(call)
    assert name in mode.coverage().routed
    for one, other in zip(ours, stock, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_embeddings_add_gradients_in_the_order_of_the_tokens() -> None:
    """In float32, rounded once, whatever the number of threads: here against a plain loop."""
    torch.set_num_threads(2)
    ids = torch.randint(9, (400,), generator=torch.Generator().manual_seed(2))
    dy = torch.randn(400, 130, generator=torch.Generator().manual_seed(3)).bfloat16()
    table = torch.zeros(9, 130, dtype=torch.bfloat16, requires_grad=True)
    with invariant_mode():
        F.embedding(ids, table).backward(dy)  # type: ignore[no-untyped-call]
    total = torch.zeros(9, 130)
    for index, row in zip(ids.tolist(), dy.float(), strict=True):
        total[index] += row
    assert table.grad is not None and torch.equal(table.grad, total.bfloat16())


# Of a table [7, 5, 40], with every place named many times.
INDEXED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "x[i]": lambda x, i: x[i],
    "x[i] of negative places": lambda x, i: x[i - 7],
    "x[:, i]": lambda x, i: x[:, i % 5].transpose(0, 1),
    "x[i, j]": lambda x, i: x[i, i % 5],
}


@pytest.mark.parametrize("name", INDEXED)
def test_gradients_of_an_index_are_added_in_order_by_two_threads_too(name: str) -> None:
    torch.set_num_threads(2)
    index = torch.randint(7, (3000,), generator=torch.Generator().manual_seed(2))
    table = torch.zeros(7, 5, 40, requires_grad=True)
    with invariant_mode() as mode:
        y = INDEXED[name](table, index)
        dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
        y.backward(dy)  # type: ignore[no-untyped-call]
    total = torch.zeros(7, 5, 40)
    for place, row in zip(index, dy, strict=True):
        picked = INDEXED[name](total, place[None])
        picked_places = INDEXED[name](torch.arange(1400).view(7, 5, 40), place[None])
        total.view(-1)[picked_places[0]] = picked[0] + row
    assert table.grad is not None and torch.equal(table.grad, total)
    assert "aten.index_put" in " ".join(mode.coverage().routed)
    assert not any("index_put" in op for op in mode.coverage().stock)


def test_linear_is_the_op_of_that_name_main_grad_included() -> None:
    weight = B[0].t().clone().requires_grad_()
    total = ops.attach_main_grad(weight)
    with invariant_mode():
        y = F.linear(A, weight)
        y.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(y, ops.linear(A, weight))
    assert weight.grad is None and bool(total.any())
