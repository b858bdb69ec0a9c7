"""Norms with another epsilon or another place of the cast, and as they were afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from driftscope_probes.errors import TrainerError
from driftscope_probes.trainer.changed_norms import changed_norms
from driftscope_probes.trainer.question import NormCast


def _norm(dtype: torch.dtype = torch.bfloat16) -> LlamaRMSNorm:
    norm = LlamaRMSNorm(64, eps=1e-5)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
    return norm.to(dtype)


HIDDEN = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("norm", "name"), [(_norm(), "variance_epsilon"), (GemmaRMSNorm(64), "eps")]
)
def test_the_epsilon_is_another_one_within_the_block_only(norm: nn.Module, name: str) -> None:
    own = getattr(norm, name)
    with changed_norms(norm, epsilon=0.25, cast=None):
        assert getattr(norm, name) == 0.25
    assert getattr(norm, name) == own


def test_casting_before_the_weight_is_what_transformers_does() -> None:
    norm = _norm()
    hidden = HIDDEN.to(torch.bfloat16)
    own = norm(hidden)
    with changed_norms(norm, epsilon=None, cast="before_weight"):
        assert torch.equal(norm(hidden), own)


def test_casting_after_the_weight_rounds_once() -> None:
    norm = _norm()
    hidden = HIDDEN.to(torch.bfloat16)
    wide = hidden.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
    once = (wide * scale * norm.weight.float()).bfloat16()
    with changed_norms(norm, epsilon=None, cast="after_weight"):
        assert torch.equal(norm(hidden), once)
    assert not torch.equal(norm(hidden), once)


@pytest.mark.parametrize("cast", ["before_weight", "after_weight"])
def test_in_float32_the_place_of_the_cast_is_nothing(cast: NormCast) -> None:
    norm = _norm(torch.float32)
    own = norm(HIDDEN)
    with changed_norms(norm, epsilon=None, cast=cast):
        torch.testing.assert_close(norm(HIDDEN), own, rtol=1e-6, atol=1e-6)


def test_a_model_without_such_a_norm_is_refused() -> None:
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2))
    with changed_norms(gpt2, epsilon=1e-3, cast=None):  # LayerNorm has an epsilon
        assert gpt2.transformer.ln_f.eps == 1e-3
    with pytest.raises(TrainerError, match="no norm with an RMSNorm of Llama's kind"):
        with changed_norms(gpt2, epsilon=None, cast="after_weight"):
            pass
    with pytest.raises(TrainerError, match="no norm with an epsilon"):
        with changed_norms(nn.Linear(2, 2), epsilon=1e-3, cast=None):
            pass
