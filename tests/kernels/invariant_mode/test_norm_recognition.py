"""RMSNorm as transformers writes it becomes one op; what only looks like it does not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from driftscope_kernels import ops
from driftscope_kernels.invariant_mode import invariant_mode
from driftscope_kernels.options import TRANSFORMERS

X = torch.randn(7, 5, 33, generator=torch.Generator().manual_seed(0)) * 3
W = torch.rand(33, generator=torch.Generator().manual_seed(1)) + 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", [LlamaRMSNorm, Qwen3RMSNorm])
def test_the_modules_have_the_bits_of_the_op(
    norm: Callable[..., torch.nn.Module], dtype: torch.dtype
) -> None:
    module = norm(33, eps=1e-6).to(dtype)
    with torch.no_grad():
        module.weight.copy_(W)  # type: ignore[operator]
    x = X.to(dtype)
    with invariant_mode() as mode:
        y = module(x)
    assert mode.coverage().routed["rms_norm"] == 1
    weight = module.weight
    assert isinstance(weight, Tensor)
    assert torch.equal(y, ops.rms_norm(x, weight, 1e-6, options=TRANSFORMERS.norm))
    assert (y.float() - module(x).float()).abs().max() <= 8 * torch.finfo(dtype).eps


def unit(x: Tensor, power: float = 2, dim: int = -1, eps: float = 1e-6) -> Tensor:
    return x * torch.rsqrt(x.pow(power).mean(dim, keepdim=True) + eps)


OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "weight plus one": lambda x: unit(x) * (1.0 + W.expand(5, 33)),
    "another power": lambda x: W * unit(x, power=4),
    "another dimension": lambda x: W * unit(x, dim=0),
    "centred": lambda x: W * (x * torch.rsqrt((x - 1).pow(2).mean(-1, keepdim=True) + 1e-6)),
    "another tensor scaled": lambda x: (
        W * ((x + 1) * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
    ),
    "no weight": unit,
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_keep_their_own_arithmetic(name: str) -> None:
    with invariant_mode() as mode:
        y = OTHERS[name](X)
    assert "rms_norm" not in mode.coverage().routed
    assert "aten.mean" in mode.coverage().routed
    torch.testing.assert_close(y, OTHERS[name](X), rtol=1e-5, atol=1e-5)


def _changed_unit() -> Tensor:
    u = unit(X)
    u.add_(1.0)
    return W * u


def _changed_input() -> Tensor:
    x = X.clone()
    u = unit(x)
    x.zero_()
    return W * u


@pytest.mark.parametrize("norm", [_changed_unit, _changed_input])
def test_a_step_that_was_changed_in_place_is_none_of_a_norm(norm: Callable[[], Tensor]) -> None:
    with invariant_mode() as mode:
        y = norm()
    assert "rms_norm" not in mode.coverage().routed
    torch.testing.assert_close(y, norm(), rtol=1e-5, atol=1e-5)


def test_steps_under_no_grad_stay_constants() -> None:
    x, weight = X.clone().requires_grad_(), W.clone().requires_grad_()
    with invariant_mode():
        with torch.no_grad():
            u = unit(x)
        (weight * u).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is None and weight.grad is not None


@pytest.mark.parametrize("grad", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_bits_are_the_same(grad: Callable[[], Any]) -> None:
    x = X.clone().requires_grad_()
    with invariant_mode():
        trained = W * unit(x)
        with grad():
            assert torch.equal(W * unit(x), trained)
