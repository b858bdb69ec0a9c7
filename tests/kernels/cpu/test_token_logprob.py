"""Fused log-probability: equal to the reference bit for bit, on every instruction set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from driftscope_kernels.cpu import token_logprob as cpu
from driftscope_kernels.options import LogprobOptions
from driftscope_kernels.reference import token_logprob as reference
from driftscope_kernels.registry import DTYPES

Bits = Callable[[Tensor], Tensor]
Wide = Callable[..., Tensor]
Logits = Literal["rounded", "float32"]


def _case(dtype: torch.dtype, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(vocabulary)
    hidden = torch.randn((6, 24), generator=generator).to(dtype)
    weight = torch.randn((vocabulary, 24), generator=generator).to(dtype)
    targets = torch.randint(0, vocabulary, (6,), generator=generator)
    return hidden, weight, targets


@pytest.mark.parametrize("logits", ["rounded", "float32"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocabulary", [1, 20, 512, 513, 1100])
def test_equals_the_reference(
    vocabulary: int, dtype: torch.dtype, logits: Logits, isas: tuple[str, ...], bits: Bits
) -> None:
    args = _case(dtype, vocabulary)
    for temperature, top_k in ((1.0, 0), (0.7, min(5, vocabulary))):
        settings: dict[str, Any] = {
            "temperature": temperature,
            "options": LogprobOptions(logits=logits),
        }
        expected = reference.token_logprob(*args, top_k=top_k, **settings)
        slopes = torch.linspace(-1, 1, 6), torch.linspace(0.5, -0.5, 6)
        gradients = reference.token_logprob_backward(*slopes, *args, expected, **settings)
        for isa in isas:
            result = cpu.token_logprob(*args, top_k=top_k, isa=isa, **settings)
            for name, value in expected._asdict().items():
                assert getattr(result, name).equal(value), (isa, temperature, name)
            found = cpu.token_logprob_backward(*slopes, *args, result, isa=isa, **settings)
            same = [bits(a).equal(bits(b)) for a, b in zip(found, gradients, strict=True)]
            assert all(same), (isa, temperature, same)


def test_infinite_and_undefined_logits(isa: str, bits: Bits) -> None:
    hidden, weight, targets = _case(torch.float32, 1100)
    hidden[0], hidden[1], hidden[2, 0] = float("nan"), float("inf"), -float("inf")
    weight[600:] = float("-inf")
    settings = {"temperature": 1.0, "top_k": 4, "options": LogprobOptions()}
    result = cpu.token_logprob(hidden, weight, targets, isa=isa, **settings)  # type: ignore[arg-type]
    expected = reference.token_logprob(hidden, weight, targets, **settings)  # type: ignore[arg-type]
    for name in ("logprob", "entropy", "largest", "total", "moment", "top_logprobs"):
        assert bits(getattr(result, name)).equal(bits(getattr(expected, name))), name


def test_equal_logits_are_told_apart_by_id(isa: str) -> None:
    hidden, weight = torch.ones(1, 2), torch.ones(1030, 2)
    weight[[7, 700, 900]] = 2.0
    result = cpu.token_logprob(
        hidden,
        weight,
        torch.tensor([0]),
        temperature=1.0,
        top_k=5,
        options=LogprobOptions(),
        isa=isa,
    )
    assert result.top_ids.tolist() == [[7, 700, 900, 0, 1]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_alone_and_in_the_batch(dtype: torch.dtype) -> None:
    hidden, weight, targets = _case(dtype, 1100)
    settings = {"temperature": 1.0, "top_k": 3, "options": LogprobOptions()}
    whole = cpu.token_logprob(hidden, weight, targets, **settings)  # type: ignore[arg-type]
    for row in range(len(hidden)):
        one = slice(row, row + 1)
        alone = cpu.token_logprob(hidden[one], weight, targets[one], **settings)  # type: ignore[arg-type]
        assert all(a.equal(b[one]) for a, b in zip(alone, whole, strict=True))
