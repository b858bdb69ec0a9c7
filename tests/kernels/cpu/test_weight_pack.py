"""A packed weight is used for the weight it was made from, and for no other."""

from __future__ import annotations

import pytest
import torch

from driftscope_kernels.cpu.linear import PackMismatchError, linear, pack_weight


def test_a_pack_is_as_large_as_its_padded_weight() -> None:
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2), (torch.float16, 2)):
        (panels,) = pack_weight(torch.ones(40, 6, dtype=dtype)).panels
        assert panels.numel() == 64 * 6 * size


def test_a_pack_of_another_weight_is_refused() -> None:
    pack = pack_weight(torch.ones(40, 8))
    with pytest.raises(PackMismatchError, match="pack it again"):
        linear(torch.ones(1, 8), torch.ones(41, 8), weight_pack=pack)
    with pytest.raises(PackMismatchError, match="tp_segments=1"):
        linear(torch.ones(1, 8), torch.ones(40, 8), weight_pack=pack, tp_segments=8)


def test_a_pack_does_not_outlive_a_change_of_the_weight() -> None:
    weight = torch.nn.Parameter(torch.ones(40, 8))
    pack = pack_weight(weight)
    with torch.no_grad():
        weight.add_(1)
    with pytest.raises(PackMismatchError, match="has changed"):
        linear(torch.ones(1, 8), weight, weight_pack=pack)


def test_a_weight_of_inference_mode_can_be_packed() -> None:
    with torch.inference_mode():
        weight = torch.ones(40, 8)
        pack = pack_weight(weight)
        assert linear(torch.ones(1, 8), weight, weight_pack=pack).tolist() == [[8.0] * 40]


def test_a_pack_of_something_else_is_left_alone() -> None:
    assert linear(torch.ones(1, 8), torch.ones(3, 8), weight_pack="other").tolist() == [[8.0] * 3]
