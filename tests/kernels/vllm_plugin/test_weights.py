"""Weights written tensor by tensor: packed layers give theirs back, bit for bit, and follow."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from driftscope_kernels.cpu.backend import operators
from driftscope_kernels.reference.linear import linear as reference
from driftscope_kernels.vllm_plugin import stock_linear
from driftscope_kernels.vllm_plugin.linear import PackedOnlyLinear, refresh_kept, release
from driftscope_kernels.vllm_plugin.rounding import KERNELS_VARIABLE, KernelChoiceError
from driftscope_kernels.vllm_plugin.weights import accept_weights

compiled = pytest.mark.skipif(operators() is None, reason="the compiled kernels are not built")
BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


@compiled
@pytest.mark.parametrize("dtype", BITS, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (33, 37), (64, 576), (31, 2)], ids=str)
def test_a_packed_weight_comes_back_bit_for_bit(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    drawn = torch.randint(-(2**15), 2**15, (*shape, 2), dtype=torch.int16)
    weight = drawn.view(torch.int32)[..., 0] if dtype == torch.float32 else drawn[..., 0]
    weight = weight.contiguous().view(dtype)  # any bits, NaN and negative zeros among them
    assert torch.equal(PackedOnlyLinear(weight).plain().view(BITS[dtype]), weight.view(BITS[dtype]))


class Fused(nn.Module):
    """As vLLM's qkv_proj: one weight, of which a loader writes a part."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 32), requires_grad=False)
        self.cpu_linear = PackedOnlyLinear(self.weight.detach())
        release(self.weight)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        for name, tensor in weights:
            first = {"q": 0, "k": 32}[name]
            self.weight.data[first : first + 32] = tensor


@compiled
def test_a_part_is_written_and_the_rest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KERNELS_VARIABLE, "invariant")
    layer, x = Fused(), torch.randn(3, 32)
    expected = layer.cpu_linear.plain()
    accept_weights(layer)
    for name, first in (("k", 32), ("q", 0)):  # one call each, as TRL makes them
        expected[first : first + 32] = sent = torch.randn(32, 32)
        layer.load_weights([(name, sent)])
        assert torch.equal(layer.cpu_linear(x, layer.weight, None), reference(x, expected))
        assert layer.weight.numel() == 0, "the packed form is the only one that is kept"


def test_stock_layers_are_made_again_when_weights_are_written() -> None:
    """Also lm_head, which vLLM packs once: what TRL writes would never reach it."""
    layer = nn.Module()
    layer.weight = nn.Parameter(torch.randn(8, 4), requires_grad=False)

    def prepare(layer: nn.Module, remove_weight: bool) -> None:
        packed = layer.weight.detach().clone()  # type: ignore[operator]
        layer.cpu_linear = lambda x, weight, bias: x @ packed.t()  # type: ignore[assignment]

    linear, x = stock_linear.StockLinear(layer, prepare), torch.randn(2, 4)
    layer.cpu_linear = linear  # type: ignore[assignment]
    assert torch.equal(linear(x, layer.weight, None), x @ layer.weight.t())
    layer.weight.data.mul_(2)
    stale = linear(x, layer.weight, None)
    assert torch.equal(stale, x @ (layer.weight / 2).t())
    refresh_kept()
    assert torch.equal(linear(x, layer.weight, None), x @ layer.weight.t())
    assert isinstance(layer.cpu_linear, stock_linear.StockLinear)


def test_stock_experts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KERNELS_VARIABLE, "stock")
    experts = nn.Module()
    experts.w13_weight = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(KernelChoiceError, match="experts on the CPU cannot be written"):
        accept_weights(nn.Sequential(experts))
