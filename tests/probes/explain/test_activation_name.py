"""The name of an activation, from what a module gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from driftscope_probes.explain.sides.activation_name import activation_name


@pytest.mark.parametrize(
    ("stated", "name"),
    [
        ("silu", "silu"),
        ("swish", "silu"),
        ("gelu", "gelu"),
        ("gelu_pytorch_tanh", "gelu_tanh"),
        ("gelu_new", "gelu_tanh"),
        ("relu", "relu"),
        ("quick_gelu", None),
        ("sigmoid", None),
    ],
)
def test_activations_of_transformers(stated: str, name: str | None) -> None:
    module: nn.Module = ACT2FN[stated]
    assert activation_name(module) == name


def test_not_a_number_is_no_activation() -> None:
    assert activation_name(lambda x: x * torch.nan) is None
