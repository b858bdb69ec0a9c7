"""Frequencies read back from tables of cosines and sines."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from driftscope_probes.explain.sides.rotary_tables import frequencies_of


def frequencies(base: float) -> Tensor:
    return 1.0 / base ** (torch.arange(0, 32, 2, dtype=torch.float32) / 32)


def table(of: Tensor, dtype: torch.dtype, scaling: float = 1.0) -> Tensor:
    angles = torch.arange(1024, dtype=torch.float32)[:, None] * of
    return (torch.cat([angles.cos(), angles.sin()], dim=-1) * scaling).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_stated_frequencies_are_kept_where_the_table_is_theirs(dtype: torch.dtype) -> None:
    stated = frequencies(1e4)
    found, scaling = frequencies_of(table(stated, dtype), stated)
    assert torch.equal(found, stated) and scaling == 1.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_another_table_is_read(dtype: torch.dtype) -> None:
    found, _ = frequencies_of(table(frequencies(5e5), dtype), frequencies(1e4))
    # A 16-bit cosine is off by 2^-8 at most, an angle at position 512 by little more.
    torch.testing.assert_close(found, frequencies(5e5), rtol=0, atol=2e-5)


def test_the_factor_of_a_table_is_read() -> None:
    stated = frequencies(1e4)
    found, scaling = frequencies_of(table(stated, torch.float32, 1.2), stated)
    assert scaling == pytest.approx(1.2, abs=1e-5)
    assert torch.equal(found, stated)
