from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftscope_probes.mismatch import Comparison, Extras, Undefined, compare, compare_tokens
from driftscope_probes.mismatch.resampling import DEFAULT_RESAMPLES
from driftscope_probes.tokens import Tokens
from driftscope_probes.trace import Trace, TraceMeta, both_sides

CONTRACT = """tokens sequences masked_tokens nonfinite_tokens rollout_nonfinite trainer_nonfinite
    rollout_zero trainer_zero rollout_positive trainer_positive abs_diff_mean abs_diff_p50
    abs_diff_p90 abs_diff_p99 abs_diff_max abs_diff_seq_mean diff_mean diff_std kl_k1 kl_k2 kl_k3
    prob_abs_diff_mean prob_abs_diff_max prob_abs_diff_std prob_pearson ratio_mean ratio_min
    ratio_max ratio_std ratio_share_outside_0p5_2 ratio_share_outside_0p9_1p1
    token_mult_prob_error seq_logratio_mean seq_logratio_std seq_logratio_min seq_logratio_max
    ess_ratio_token ess_ratio_sequence bitwise_equal_fraction bitwise_equal_sequences
    first_differing_token first_differing_token_median intervals undefined
    abs_diff_p95 abs_diff_p99p9 abs_diff_p99p99 kl_reverse_k3 kl_reverse_unbiased js_divergence
    binary_kl_mean binary_kl_max chi2_token chi2_token_saturated chi2_seq chi2_seq_saturated
    prob_abs_diff_seq_mean prob_diff_mean ratio_abs_dev_mean ratio_share_above_2
    ratio_share_below_0p5 ratio_share_outside_0p8_1p2 abs_diff_share_above_ln2
    seq_mult_prob_error_mean seq_mult_prob_error_min seq_mult_prob_error_max seq_ratio_mean
    seq_ratio_min seq_ratio_max seq_geo_ratio_mean seq_geo_ratio_min seq_geo_ratio_max
    training_ppl training_log_ppl rollout_ppl rollout_log_ppl log_ppl_diff_mean
    log_ppl_diff_abs_mean log_ppl_diff_max log_ppl_diff_min ppl_ratio ess_ratio_token_truncated
    ess_ratio_sequence_truncated ulp_distance_p50 ulp_distance_max confident_disagreements
    confident_disagreement_share seq_logratio_slope_per_1000_tokens""".split()

WITH_INTERVAL = {"abs_diff_mean", "diff_mean", "kl_k1", "kl_k3", "prob_abs_diff_mean"}

logprob_arrays = st.lists(st.floats(-60, 0, width=32), min_size=2, max_size=80)


def of_batch(pair: Tokens, resamples: int = DEFAULT_RESAMPLES) -> Comparison:
    return compare(pair.rollout, pair.trainer, pair.cu_seqlens, pair.mask, resamples=resamples)


def numbers(comparison: Comparison) -> dict[str, Any]:
    return {k: v for k, v in comparison.to_dict().items() if not isinstance(v, dict)}


def test_names_of_the_contract_are_there_and_occur_in_one_part_only(
    batch: Callable[[int], Tokens],
) -> None:
    comparison = of_batch(batch(0))
    assert set(CONTRACT) <= set(comparison.to_dict())
    parts = [
        getattr(comparison, field.name)
        for field in dataclasses.fields(comparison)
        if field.name != "sums"
    ]
    names = [f.name for p in parts if dataclasses.is_dataclass(p) for f in dataclasses.fields(p)]
    assert len(names) == len(set(names))
    assert set(names) <= set(comparison.to_dict())


@pytest.mark.parametrize("seed", range(20))
def test_json_holds_no_nan_and_a_reason_for_every_null(
    seed: int, batch: Callable[[int], Tokens]
) -> None:
    as_dict = of_batch(batch(seed), resamples=50).to_dict()
    assert json.loads(json.dumps(as_dict, allow_nan=False)) == as_dict
    nulls = {name for name, value in as_dict.items() if value is None}
    assert nulls == {name for name in as_dict["undefined"] if not name.startswith("intervals.")}


def test_intervals_hold_their_numbers_and_can_be_switched_off() -> None:
    rng = np.random.default_rng(5)
    rollout = np.log(rng.random(900))
    trainer = rollout + rng.normal(0.01, 0.1, 900)
    limits = np.array([*range(0, 870, 29), 900])
    as_dict = compare(rollout, trainer, limits).to_dict()
    assert WITH_INTERVAL <= set(as_dict["intervals"])
    for name, (low, high) in as_dict["intervals"].items():
        assert low < as_dict[name] < high, name
    reseeded = compare(rollout, trainer, limits, seed=1).to_dict()
    assert reseeded["intervals"] != as_dict["intervals"] and reseeded["interval_seed"] == 1
    without = compare(rollout, trainer, limits, resamples=0).to_dict()
    assert without["intervals"] == {} and without["undefined"] == {}
    assert without["abs_diff_mean"] == as_dict["abs_diff_mean"]


def test_one_sequence_has_numbers_and_a_reason_for_missing_intervals() -> None:
    as_dict = compare(np.array([-1.0, -2.0]), np.array([-1.5, -2.0]), [0, 2]).to_dict()
    assert as_dict["abs_diff_mean"] == 0.25
    assert as_dict["intervals"] == {}
    assert "at least two" in as_dict["undefined"]["intervals.abs_diff_mean"]


@settings(max_examples=50)
@given(logprob_arrays, st.sampled_from([np.float32, np.float64]))
def test_equal_inputs_give_exact_zeros(values: list[float], dtype: type) -> None:
    logprobs: NDArray[np.floating[Any]] = np.array(values, dtype=dtype)
    as_dict = compare(logprobs, logprobs.copy(), [0, 1, logprobs.size], resamples=50).to_dict()
    zero_names = (
        "abs_diff diff kl seq_logratio prob_abs prob_diff js binary chi2 log_ppl ulp".split()
    )
    zeros = [n for n in as_dict if n.startswith((*zero_names, "ratio_share", "ratio_abs"))]
    ones = ["ratio_mean", "ratio_min", "ratio_max", "token_mult_prob_error", "ess_ratio_token"]
    ones += [n for n in as_dict if n.startswith(("seq_ratio", "seq_geo", "seq_mult", "ppl_"))]
    ones += ["ess_ratio_token_truncated", "ess_ratio_sequence_truncated", "ess_ratio_sequence"]
    ones += ["bitwise_equal_fraction", "bitwise_equal_sequence_fraction"]
    assert {name: as_dict[name] for name in zeros if as_dict[name] is not None} == dict.fromkeys(
        [name for name in zeros if as_dict[name] is not None], 0.0
    )
    assert {name: as_dict[name] for name in ones} == dict.fromkeys(ones, 1.0)
    assert as_dict["prob_pearson"] in (1.0, None)
    assert as_dict["first_differing_token"] is None
    assert as_dict["intervals"]["abs_diff_mean"] == [0.0, 0.0]


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_order_of_the_sequences_does_not_matter(
    batch: Callable[[int], Tokens], seed: int, random: Any
) -> None:
    pair = batch(seed)
    assert pair.mask is not None
    order = list(range(pair.cu_seqlens.size - 1))
    random.shuffle(order)
    limits = pair.cu_seqlens
    places = np.concatenate([np.arange(limits[i], limits[i + 1]) for i in order])
    shuffled = compare(
        pair.rollout[places],
        pair.trainer[places],
        np.concatenate([[0], np.cumsum(np.diff(limits)[order])]),
        pair.mask[places],
        resamples=0,
    )
    assert numbers(shuffled) == pytest.approx(
        numbers(of_batch(pair, resamples=0)), rel=1e-9, abs=1e-13
    )


@settings(max_examples=50)
@given(
    st.integers(0, 10**6),
    st.sampled_from([np.nan, np.inf, -np.inf, 1e30, 0.0]),
    st.sampled_from([np.nan, np.inf, -np.inf, -1e30, 0.0]),
)
def test_masked_tokens_have_no_effect_whatever_they_hold(
    batch: Callable[[int], Tokens], seed: int, rollout_junk: float, trainer_junk: float
) -> None:
    pair = batch(seed)
    rollout, trainer = pair.rollout.copy(), pair.trainer.copy()
    rollout[~_mask(pair)] = rollout_junk
    trainer[~_mask(pair)] = trainer_junk
    changed = compare(rollout, trainer, pair.cu_seqlens, pair.mask, resamples=20)
    assert changed.to_dict() == of_batch(pair, resamples=20).to_dict()


def _mask(pair: Tokens) -> NDArray[np.bool_]:
    assert pair.mask is not None
    return pair.mask


def test_a_mask_is_the_same_as_leaving_the_tokens_out(
    batch: Callable[[int], Tokens],
) -> None:
    pair = batch(3)
    mask = _mask(pair)
    lengths = [
        int(mask[a:b].sum()) for a, b in zip(pair.cu_seqlens, pair.cu_seqlens[1:], strict=False)
    ]
    short = compare(
        pair.rollout[mask], pair.trainer[mask], np.concatenate([[0], np.cumsum(lengths)])
    ).to_dict()
    places = {"masked_tokens", "first_differing_token", "first_differing_token_median"}
    whole = of_batch(pair).to_dict()
    assert {n: v for n, v in short.items() if n not in places} == {
        n: v for n, v in whole.items() if n not in places
    }


@pytest.mark.parametrize(
    ("rollout", "mask", "counts"),
    [
        ([np.nan, -np.inf], None, {"nonfinite_tokens": 2, "rollout_nonfinite": 2}),
        ([-1.0, -2.0], [False, False], {"masked_tokens": 2, "nonfinite_tokens": 0}),
        ([], None, {"masked_tokens": 0, "nonfinite_tokens": 0}),
    ],
)
def test_nothing_to_compare_gives_reasons_not_a_crash(
    rollout: list[float], mask: list[bool] | None, counts: dict[str, int]
) -> None:
    values = np.array(rollout, dtype=np.float32)
    given_mask = None if mask is None else np.array(mask)
    as_dict = compare(values, np.full_like(values, -1.0), [0, values.size], given_mask).to_dict()
    json.dumps(as_dict, allow_nan=False)
    assert as_dict["tokens"] == as_dict["sequences"] == 0
    assert {name: as_dict[name] for name in counts} == counts
    for name in ("abs_diff_mean", "kl_k3", "prob_pearson", "ess_ratio_token", "ratio_mean"):
        assert as_dict[name] is None
        assert "no unmasked token" in as_dict["undefined"][name]


def test_infinite_and_huge_differences_stay_out_of_the_json() -> None:
    rollout = np.array([-1.0, -1e300, -1.0, -1.0])
    trainer = np.array([-1e300, -1.0, -np.inf, -1.0])
    as_dict = compare(rollout, trainer, [0, 2, 4]).to_dict()
    json.dumps(as_dict, allow_nan=False)
    assert as_dict["kl_k3"] is None and "overflows" in as_dict["undefined"]["kl_k3"]
    assert as_dict["nonfinite_tokens"] == 1
    assert math.isclose(as_dict["abs_diff_max"], 1e300)


def test_value_gives_the_number_or_the_reason() -> None:
    comparison = compare(np.array([-1.0]), np.array([-1.5]), [0, 1], resamples=0)
    assert comparison.value("diff_mean") == -0.5
    assert isinstance(comparison.value("diff_std"), Undefined)
    with pytest.raises(KeyError):
        comparison.value("no_such_number")


def test_extras_add_their_numbers_and_change_no_other(
    batch: Callable[[int], Tokens],
) -> None:
    pair = batch(2)
    extras = Extras(
        entropy=np.full(pair.rollout.size, 0.5),
        behavior_version=np.arange(pair.cu_seqlens.size - 1),
        train_version=20,
    )
    plain = of_batch(pair, resamples=20).to_dict()
    found = compare(
        pair.rollout, pair.trainer, pair.cu_seqlens, pair.mask, resamples=20, extras=extras
    ).to_dict()
    added = """entropy_mean kl_k3_entropy_ratio lag_mean lag_max stale_token_share
        lag0_abs_diff_mean staleness_share""".split()
    assert found.keys() - plain.keys() == set(added)
    undefined = {n: r for n, r in found["undefined"].items() if n not in added}
    assert {n: v for n, v in found.items() if n not in added} | {"undefined": undefined} == plain
    assert found["kl_k3_entropy_ratio"] == found["kl_k3"] / 0.5


def test_pair_of_traces_is_compared_under_its_mask() -> None:
    ids, limits = np.array([5, 6, 7], dtype=np.int32), np.array([0, 1, 3])
    mask = np.array([True, True, False])
    rollout = np.array([-1.0, -2.0, -3.0], dtype=np.float32)
    trainer = np.array([-1.5, -2.0, 9.0], dtype=np.float32)
    tokens = both_sides(
        Trace(ids, rollout, limits, mask, TraceMeta("rollout", "m", "bf16", "vllm", "1")),
        Trace(ids, trainer, limits, mask, TraceMeta("trainer", "m", "fp32", "trainer", "1")),
    )
    comparison, _ = compare_tokens(tokens, resamples=100, seed=4)
    assert comparison == compare(rollout, trainer, limits, mask, resamples=100, seed=4)
    assert comparison.value("abs_diff_mean") == 0.25
    assert comparison.value("diff_mean") == -0.25


def test_imports_are_light() -> None:
    code = (
        "import sys, driftscope_probes.mismatch; "
        "print(sorted({'torch', 'vllm', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    env_path = ":".join(path for path in sys.path if path)
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": env_path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"
