"""Whole distributions against float64, and a real pair whose sides have the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from driftscope_probes.engines.settings import EngineSettings, child_environment
from driftscope_probes.explain.full_vocabulary import TOP_K, compared, summed_up
from driftscope_probes.explain.planted.families import save
from driftscope_probes.explain.report import Parts

from .engine_process import answered

SCRIPT = Path(__file__).with_name("pair_script.py")
SAMPLED = torch.tensor([0, 1, 2])


def distributions(seed: int, apart: float) -> tuple[Tensor, Tensor]:
    """Two of 3 tokens over 50, float32 log-probabilities."""
    made = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, 50, generator=made)
    other = logits + apart * torch.randn(3, 50, generator=made)
    return logits.log_softmax(1), other.log_softmax(1)


@given(seed=st.integers(0, 10_000), apart=st.sampled_from([1e-3, 0.1, 2.0]))
def test_divergences_are_those_of_float64(seed: int, apart: float) -> None:
    mine, theirs = distributions(seed, apart)
    found = compared(mine, theirs, SAMPLED)
    # Normalised again: float32 log-probabilities sum to one only to 1e-7.
    left, right = (one.double().log_softmax(1).numpy() for one in (mine, theirs))
    p, q = np.exp(left), np.exp(right)
    np.testing.assert_allclose(found.forward, (p * (left - right)).sum(1), rtol=1e-5, atol=1e-13)
    np.testing.assert_allclose(found.backward, (q * (right - left)).sum(1), rtol=1e-5, atol=1e-13)
    np.testing.assert_allclose(found.variation, np.abs(p - q).sum(1) / 2, atol=2e-7)
    for row in range(3):
        tops = [set(one[row].topk(TOP_K).indices.tolist()) for one in (mine, theirs)]
        assert float(found.overlap[row]) == len(tops[0] & tops[1]) / TOP_K


def test_one_bit_beside_the_sampled_token_is_seen() -> None:
    mine, _ = distributions(0, 1.0)
    theirs = mine.clone()
    theirs[1, 40] = torch.nextafter(theirs[1, 40], torch.tensor(0.0))
    found = compared(mine, theirs, SAMPLED)
    assert found.equal.tolist() == [True, False, True]
    assert found.equal_sampled.all()
    whole = summed_up([found], 50, 3)
    assert whole.equal_sampled == 1.0
    assert whole.sentence.startswith("Equality on sampled tokens does not hold on the whole")
    assert "33.3% of 3 tokens" in whole.sentence


def test_a_token_that_one_side_excludes() -> None:
    whole = torch.tensor([[0.25, 0.75]]).log()
    alone = torch.tensor([[-torch.inf, 0.0]])
    found = compared(alone, whole, torch.tensor([1]))
    assert float(found.forward) == pytest.approx(-np.log(0.75))
    assert float(found.backward) == np.inf
    assert float(found.variation) == pytest.approx(0.25)


def test_that_only_the_first_tokens_were_compared_is_said() -> None:
    mine, _ = distributions(0, 1.0)
    whole = summed_up([compared(mine, mine, SAMPLED)], 50, 10)
    assert whole.sentence.endswith("Compared were the first 3 of 10 tokens.")
    assert whole.equal_tokens == 1.0
    assert whole.kl_engine_trainer_max == 0.0


def test_our_kernels_on_both_sides_are_equal_on_the_whole_vocabulary(tmp_path: Path) -> None:
    folder = tmp_path / "llama"
    save("llama", folder)
    request = {
        "model": "llama",
        "full_vocab": True,
        "sampling": {"max_tokens": 6},
        "engine": {"threads": 1, "kernels": "invariant"},
        "trainer": {"threads": 1, "kernels": "invariant"},
    }
    environment = child_environment(EngineSettings(threads=1, kernels="invariant"))
    asked = [{"folder": str(folder), "request": request}]
    (answer,) = answered(SCRIPT, asked, tmp_path, **environment)
    parts = Parts(**answer["parts"])
    assert parts.verdict == "equal"
    assert {"lm_head", "logprob"} <= {one.site for one in parts.compared}
    whole = parts.full_vocabulary
    assert whole is not None
    assert (whole.tokens, whole.equal_tokens, whole.top_k_overlap) == (12, 1.0, 1.0)
    assert "also holds on all" in whole.sentence
