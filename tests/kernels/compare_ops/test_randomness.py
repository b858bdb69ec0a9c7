from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from driftscope_kernels.compare_ops.randomness import dropout_of

from . import row_ops


def _plain(dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(48, 64, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", row_ops.DTYPES)
@settings(max_examples=20, deadline=None)
@given(share=st.sampled_from([0.01, 0.05, 0.1, 0.2, 0.25, 0.5]), seed=st.integers(0, 2**20))
def test_the_share_dropped_is_found(dtype: torch.dtype, share: float, seed: int) -> None:
    plain = _plain(dtype, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        seen = F.dropout(plain, share, training=True)
    found = dropout_of(plain, seen)
    # A factor of 8 bits tells a small share to two digits at best.
    assert found == pytest.approx(share, abs=2 * torch.finfo(dtype).eps)
    if dtype == torch.float32:
        assert found == share


@pytest.mark.parametrize("dtype", row_ops.DTYPES)
def test_what_is_no_dropout(dtype: torch.dtype) -> None:
    plain = _plain(dtype)
    keep = torch.rand(plain.shape, generator=torch.Generator().manual_seed(1)) > 0.1
    assert dropout_of(plain, plain) is None
    assert dropout_of(plain, torch.zeros_like(plain)) is None
    assert dropout_of(plain, plain * keep) is None  # zeros, but nothing made up for
    assert dropout_of(plain, plain * 1.25) is None  # the factor, but no zeros
    assert dropout_of(plain, plain * keep * 2) is None  # half would have to be zero
    assert dropout_of(plain, _plain(dtype, 5) * keep / 0.9) is None  # of another tensor
    assert dropout_of(plain[:1, :8], plain[:1, :8] * 0) is None  # too few to tell
