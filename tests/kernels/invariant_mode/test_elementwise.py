"""Element-wise functions: the bits of an element do not depend on where in a tensor it lies."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from driftscope_kernels.invariant_mode import invariant_mode

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
N = 70_001
PARTS = [(0, 1), (5, 12), (0, 17), (3, 50), (0, 31), (7, 33_000), (64, 128)]


def laid_out_alike(x: Tensor) -> Tensor:
    """A copy with the strides of x, which clone() would close up."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).copy_(x)


# Taken over: torch's own differ at the end of a tensor, or where it is strided.
OURS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "softplus": F.softplus,
    "rsqrt": lambda x: x.abs().rsqrt(),
    "silu in place": lambda x: F.silu(laid_out_alike(x), inplace=True),
    "sigmoid in place": lambda x: laid_out_alike(x).sigmoid_(),
    "rsqrt in place": lambda x: laid_out_alike(x).abs_().rsqrt_(),
}
# Left to torch.
STOCK: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "log": lambda x: x.abs().log(),
    "cos": torch.cos,
    "sin": torch.sin,
    "tanh": torch.tanh,
    "sqrt": lambda x: x.abs().sqrt(),
    "pow": lambda x: x.pow(2),
    "mul": lambda x: x * x,
    "div": lambda x: 1 / x,
}


def differing(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> int:
    """Elements whose bits are others in a part of the tensor, or in a strided one."""
    x = (torch.randn(N, generator=torch.Generator().manual_seed(0)) * 5).to(dtype)
    whole = function(x)
    count = sum(int((function(x[a:b].clone()) != whole[a:b]).sum()) for a, b in PARTS)
    return count + int((function(torch.stack([x, x], 1)[:, 0]) != whole).sum())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*OURS, *STOCK])
def test_place_plays_no_part(name: str, dtype: torch.dtype, threads: int) -> None:
    torch.set_num_threads(threads)
    with invariant_mode():
        assert differing({**OURS, **STOCK}[name], dtype) == 0


def test_torchs_own_differ() -> None:
    """The positive control, and why these are taken over."""
    found = {
        name: sum(differing(function, dtype) for dtype in DTYPES) for name, function in OURS.items()
    }
    assert all(found.values()), found


@pytest.mark.parametrize("name", OURS)
def test_gradients_depend_on_no_place_either(name: str) -> None:
    def gradient(x: Tensor) -> Tensor:
        leaf = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(OURS[name](leaf).sum(), leaf)
        return grad

    with invariant_mode():
        assert differing(gradient, torch.float32) == 0
