"""Sigma against noise of known size on the logits, and the priors."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from driftscope_probes.diagnosis.floor import (
    MIXTURE_OF_EXPERTS,
    PRIOR_SIGMA,
    QUANTISED_SIGMA,
    family_of,
    measured_sigma,
    prior_floor,
    short_dtype,
)
from driftscope_probes.tokens import Tokens

Floats = NDArray[np.float64]


def softmax_pair(
    sigma: float, tokens: int = 4000, vocabulary: int = 400, seed: int = 0
) -> tuple[Floats, Floats]:
    """Log-probabilities of sampled tokens before and after noise on all logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 2.5, (tokens, vocabulary))
    noisy = logits + rng.normal(0.0, sigma, logits.shape)
    before, after = (values - _log_sum(values)[:, None] for values in (logits, noisy))
    drawn = (before + rng.gumbel(size=before.shape)).argmax(1)
    row = np.arange(tokens)
    return before[row, drawn], after[row, drawn]


def _log_sum(values: Floats) -> Floats:
    largest = values.max(1)
    total: Floats = largest + np.log(np.exp(values - largest[:, None]).sum(1))
    return total


def tokens_of(rollout: Floats, trainer: Floats, mask: NDArray[np.bool_] | None = None) -> Tokens:
    return Tokens(rollout, trainer, np.array([0, rollout.size]), mask)


@pytest.mark.parametrize("sigma", [1e-5, 0.009, 0.07])
def test_sigma_is_the_size_of_the_noise_that_was_put_on_the_logits(sigma: float) -> None:
    found = measured_sigma(tokens_of(*softmax_pair(sigma)))
    # A little above: noise on the other tokens adds sum of their p², which 1 − p leaves out.
    assert found is not None and sigma < found < 1.15 * sigma


def test_masked_and_non_finite_tokens_take_no_part() -> None:
    rollout, trainer = softmax_pair(0.07)
    clean = measured_sigma(tokens_of(rollout, trainer))
    spoiled = trainer.copy()
    mask = np.ones(rollout.size, np.bool_)
    mask[:100], spoiled[:100] = False, -50.0
    assert measured_sigma(tokens_of(rollout, spoiled, mask)) == pytest.approx(clean, rel=0.1)
    for value in (np.nan, np.inf, -np.inf):
        spoiled = trainer.copy()
        spoiled[:100] = value
        assert measured_sigma(tokens_of(rollout, spoiled)) == measured_sigma(
            tokens_of(rollout[100:], trainer[100:])
        )
    both = rollout.copy()
    both[:100] = spoiled[:100] = -np.inf
    assert measured_sigma(tokens_of(both, spoiled)) is not None


def test_nothing_to_measure_is_none_and_agreement_is_zero() -> None:
    some = np.array([-1.0, -2.0])
    assert measured_sigma(tokens_of(some, some)) == 0.0
    assert measured_sigma(tokens_of(some, some, np.zeros(2, np.bool_))) is None
    assert measured_sigma(tokens_of(np.full(2, np.nan), some)) is None
    certain = np.zeros(2)
    assert measured_sigma(tokens_of(certain, certain - 1.0)) is None
    # A log-probability above 0 counts as certain, not as room for noise.
    assert measured_sigma(tokens_of(np.array([0.5, -1.0]), np.array([0.5, -1.1]))) == pytest.approx(
        0.1 / (1 - np.exp(-1.0))
    )
    assert measured_sigma(tokens_of(some, np.array([-1e200, -2.0]))) is None


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("torch.bfloat16", "bf16"),
        ("BF16+fp32-head", "bf16"),
        ("autocast-fp16+fp32-head", "fp16"),
        ("float8_e4m3fn", "fp8"),
        ("nf4", "nf4"),
        ("", None),
        (None, None),
    ],
)
def test_dtypes_are_known_in_every_spelling(name: str | None, short: str | None) -> None:
    assert short_dtype(name) == short


def test_the_coarser_dtype_carries_the_prior() -> None:
    assert prior_floor("bf16", "fp32").sigma == PRIOR_SIGMA["bf16"]
    assert prior_floor("fp32", "fp16").sigma == PRIOR_SIGMA["fp16"]
    assert prior_floor("fp8", "bf16").sigma == QUANTISED_SIGMA["fp8"]
    unstated = prior_floor(None, "fp16")
    assert unstated.assumed == ("rollout_dtype",) and unstated.sigma == PRIOR_SIGMA["bf16"]
    assert prior_floor("fp16", "fp16").assumed == ()


def test_a_family_is_known_by_name_and_said() -> None:
    dense = prior_floor("bf16", "bf16", model="Qwen/Qwen2.5-7B")
    assert dense.sigma == PRIOR_SIGMA["bf16"] and "dense" in dense.basis
    small = prior_floor("bf16", "bf16", model="EleutherAI/pythia-160m")
    # Published: std(Δ) 1.247; healthy there, and no bug.
    assert 1.247 < small.sigma < 2.0 and "pythia-160m" in small.basis
    for name in ("Qwen/Qwen3-30B-A3B", "granite-3.1-1b-a400m", "mistralai/Mixtral-8x7B"):
        assert prior_floor("bf16", "bf16", model=name).sigma == pytest.approx(
            PRIOR_SIGMA["bf16"] * MIXTURE_OF_EXPERTS
        )
    assert prior_floor("bf16", "bf16", moe=True).sigma == pytest.approx(
        PRIOR_SIGMA["bf16"] * MIXTURE_OF_EXPERTS
    )
    assert family_of("DeepSeek-R1-Distill-Qwen-1.5B") is None
