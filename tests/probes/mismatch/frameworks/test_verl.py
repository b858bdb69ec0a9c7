from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from driftscope_probes.mismatch.frameworks.unmasked_tokens import AliasValues, unmasked_tokens
from driftscope_probes.mismatch.frameworks.verl import VerlCorrection, verl
from driftscope_probes.mismatch.frameworks.verl_rejection import OPTIONS, VerlRejection
from driftscope_probes.tokens import Tokens, checked_tokens

# What the contract asks for.
RELATIVE = 1e-6
# verl's own rounding in float64, where it subtracts nearly equal numbers: exp(Δ) − 1 − Δ loses all
# below 2e-16, mean(w²) − mean(w)² the square of that, which the root brings back to 1e-8 × w.
ABSOLUTE = 2e-15
ABSOLUTE_STD = 1e-7
# Shares are means of float32 flags in verl.
SHARE = 1e-7

Padded = tuple[Any, Any, Any]


def padded(pair: Tokens) -> Padded:
    """[rows, width] tensors as verl's DataProto holds them; the padding is NaN-free garbage."""
    import torch

    lengths = np.diff(pair.cu_seqlens)
    shape = (lengths.size, int(lengths.max()))
    held = np.arange(shape[1]) < lengths[:, None]
    rollout, trainer = np.full(shape, -7.0), np.full(shape, -3.0)
    mask = np.zeros(shape, dtype=np.int64)
    rollout[held], trainer[held] = pair.rollout, pair.trainer
    mask[held] = 1 if pair.mask is None else pair.mask
    return torch.from_numpy(rollout), torch.from_numpy(trainer), torch.from_numpy(mask)


def of_verl(own: Any, pair: Tokens, correction: VerlCorrection) -> dict[str, float]:
    rollout, trainer, mask = padded(pair)
    threshold: float | str = correction.upper
    if correction.lower is not None:
        threshold = f"{correction.lower}_{correction.upper}"
    _, _, metrics = own.rollout_corr.compute_rollout_correction_and_rejection_mask(
        old_log_prob=trainer,
        rollout_log_prob=rollout,
        response_mask=mask,
        rollout_is=correction.rollout_is,
        rollout_is_threshold=threshold,
        rollout_rs=",".join(r.option for r in correction.rejections) or None,
        rollout_rs_threshold=",".join(_bounds(r) for r in correction.rejections) or None,
    )
    batch = {
        "rollout_log_probs": rollout,
        "old_log_probs": trainer,
        "response_mask": mask,
        "responses": rollout,
    }
    return {**metrics, **own.debug.calculate_debug_metrics(SimpleNamespace(batch=batch))}


def _bounds(rejection: VerlRejection) -> str:
    if rejection.lower is None:
        return str(rejection.upper)
    return f"{rejection.lower}_{rejection.upper}"


def assert_equal(ours: AliasValues, theirs: dict[str, float], pair: Tokens) -> None:
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        own = ours[name]
        if name.endswith("pearson_corr"):
            _assert_correlation(own, value, pair)
        elif not math.isfinite(value):
            assert own is None, (name, own, value)
        else:
            assert own == pytest.approx(value, rel=RELATIVE, abs=_rounding(name, pair)), name


def _rounding(name: str, pair: Tokens) -> float:
    """What verl's arithmetic loses of this metric, absolutely."""
    if name.endswith("_std"):
        return ABSOLUTE_STD
    if "fraction" in name or name.endswith("oob_ratio"):
        return SHARE
    terms = int(np.diff(pair.cu_seqlens).max()) if "seq_sum_k3" in name else 1
    return ABSOLUTE * terms


def _assert_correlation(own: float | None, value: float, pair: Tokens) -> None:
    """torch centres on a rounded mean: a nearly constant side gives it digits that mean nothing."""
    if own is None or not math.isfinite(value):
        sides = [np.exp(side[pair.mask]) for side in (pair.rollout, pair.trainer)]
        constant = any(s.size and s.min() == s.max() for s in sides)
        assert own is None and (constant or not math.isfinite(value))
    else:
        assert own == pytest.approx(value, rel=RELATIVE, abs=RELATIVE)


CORRECTIONS = (
    VerlCorrection(),
    VerlCorrection("token", 2.0),
    VerlCorrection("token", 5.0, 0.5),
    VerlCorrection("sequence", 5.0, 0.5),
    VerlCorrection(
        None,
        rejections=tuple(
            VerlRejection(o, 1.3, 0.9) if o.endswith("k1") else VerlRejection(o, 0.01)
            for o in OPTIONS
        ),
    ),
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*degrees of freedom is <= 0:UserWarning")
@pytest.mark.parametrize("correction", CORRECTIONS, ids=range(len(CORRECTIONS)))
def test_equals_verls_own_functions(
    correction: VerlCorrection, verl_own: Any, adversarial: Callable[[int], Tokens]
) -> None:
    for seed in range(250):
        pair = adversarial(seed)
        with np.errstate(all="ignore"):
            ours = verl(unmasked_tokens(pair), correction)
        try:
            theirs = of_verl(verl_own, pair, correction)
        except ZeroDivisionError:  # IcePop keeps nothing: verl stops, we leave its sample size None
            assert ours["rollout_corr/rollout_is_eff_sample_size"] is None
            continue
        assert_equal(ours, theirs, pair)


@pytest.mark.slow
def test_the_comparison_catches_a_wrong_definition(
    verl_own: Any, adversarial: Callable[[int], Tokens]
) -> None:
    pair = adversarial(100)
    swapped = checked_tokens(pair.trainer, pair.rollout, pair.cu_seqlens, pair.mask)
    with pytest.raises(AssertionError):
        assert_equal(
            verl(unmasked_tokens(swapped)), of_verl(verl_own, pair, VerlCorrection()), pair
        )


def test_a_batch_without_tokens_has_no_numbers() -> None:
    pair = checked_tokens([-1.0], [-1.0], [0, 1], [False])
    assert verl(unmasked_tokens(pair)) == {"training/rollout_probs_diff_valid": 0.0}


def test_an_empty_sequence_counts_as_perplexity_one() -> None:
    rollout = trainer = np.array([-2.0, -2.0])
    values = verl(unmasked_tokens(checked_tokens(rollout, trainer, [0, 2, 2])))
    assert values["rollout_corr/training_ppl"] == pytest.approx((math.exp(2.0) + 1.0) / 2)


def test_one_unbounded_token_shows_as_none() -> None:
    pair = checked_tokens(np.array([-1.0, -800.0]), np.array([-1.0, 0.0]), [0, 2])
    with np.errstate(all="ignore"):
        values = verl(unmasked_tokens(pair))
    assert values["rollout_corr/k3_kl"] is None
    assert values["rollout_corr/chi2_seq"] == pytest.approx(math.expm1(40.0))
