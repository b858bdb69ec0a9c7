from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_kernels.compare_ops.embedding import EMBEDDING
from driftscope_kernels.compare_ops.parameters import EmbeddingParameters
from driftscope_kernels.compare_ops.variant import Inputs

from . import row_ops

WIDTH = 120  # its root is no number of 8 or 11 bits


def _case(dtype: torch.dtype, seed: int, scale: float) -> tuple[Inputs, EmbeddingParameters]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(50, WIDTH, generator=generator).to(dtype)
    tokens = torch.randint(0, 50, (30,), generator=generator)
    return row_ops.packed({}, 30, tokens), EmbeddingParameters(weight, scale)


@pytest.mark.parametrize("dtype", row_ops.DTYPES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**20), scale=st.sampled_from([1.0, WIDTH**0.5, 0.3, 77.7]))
def test_variants_are_rounding(dtype: torch.dtype, seed: int, scale: float) -> None:
    inputs, parameters = _case(dtype, seed, scale)
    row_ops.check_variants(EMBEDDING, parameters, inputs, dtype)


@pytest.mark.parametrize("dtype", row_ops.NARROW)
def test_the_rounded_scale_shows(dtype: torch.dtype) -> None:
    inputs, parameters = _case(dtype, 1, WIDTH**0.5)
    assert row_ops.same_as_plain(EMBEDDING, parameters, inputs, dtype) == set()


@pytest.mark.parametrize("dtype", row_ops.DTYPES)
def test_no_fault_is_taken_for_rounding(dtype: torch.dtype) -> None:
    for scale in (1.0, WIDTH**0.5):
        inputs, parameters = _case(dtype, 2, scale)
        within = set(row_ops.faults_within(EMBEDDING, parameters, inputs, dtype))
        # In bfloat16 that is what Gemma does.
        assert within == ({"bf16_scale"} if scale != 1 and dtype == torch.bfloat16 else set())


@pytest.mark.parametrize("dtype", row_ops.DTYPES)
def test_the_module_of_transformers(dtype: torch.dtype) -> None:
    from transformers.models.gemma.modeling_gemma import GemmaTextScaledWordEmbedding

    inputs, parameters = _case(dtype, 3, WIDTH**0.5)
    module = GemmaTextScaledWordEmbedding(50, WIDTH, 0, embed_scale=WIDTH**0.5).to(dtype)
    module.weight.data.copy_(parameters.weight)
    # A model's buffers keep float32 until the product rounds them.
    module.embed_scale = torch.tensor(WIDTH**0.5)
    plain = EMBEDDING.variants(parameters)[0]
    with torch.no_grad():
        theirs = module(inputs.tokens)
    assert row_ops.equals(plain.run(inputs, parameters, dtype), (theirs,))
