"""Layers' products: the bits of the contract, and packed weights that follow the weight."""

import pytest
import torch

from driftscope_kernels.reference.linear import linear as reference
from driftscope_kernels.vllm_plugin.linear import (
    KeptLinear,
    PackedLinear,
    refresh_kept,
)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_is_the_reference(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(50, 37, generator=generator).to(dtype)
    bias = torch.randn(50, generator=generator).to(dtype)
    x = torch.randn(5, 2, 37, generator=generator).to(dtype)
    packed = PackedLinear(weight)
    for added in (None, bias):
        expected = reference(x, weight, added)
        assert torch.equal(packed(x, torch.empty(0), added), expected)


def test_a_kept_weight_is_packed_again_when_it_changes() -> None:
    weight = torch.nn.Parameter(torch.randn(64, 32))
    x, layer = torch.randn(3, 32), KeptLinear()
    assert torch.equal(layer(x, weight, None), reference(x, weight.detach()))
    weight.data.mul_(1.5)  # as weight loaders do: torch's version counter stays
    assert torch.equal(layer(x, weight, None), reference(x, weight.detach()))
    other = torch.nn.Parameter(torch.randn(64, 32))
    assert torch.equal(layer(x, other, None), reference(x, other.detach()))


def test_a_change_of_one_element_is_seen_after_a_load() -> None:
    weight = torch.nn.Parameter(torch.randn(256, 128))
    x, layer = torch.randn(3, 128), KeptLinear()
    before = layer(x, weight, None)
    weight.data[17, 5] += 1  # between the elements that every call compares
    assert torch.equal(layer(x, weight, None), before)
    refresh_kept()
    assert torch.equal(layer(x, weight, None), reference(x, weight.detach()))
