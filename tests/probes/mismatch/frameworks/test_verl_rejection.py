from __future__ import annotations

import math

import numpy as np
import pytest

from driftscope_probes.mismatch.frameworks.unmasked_tokens import unmasked_tokens
from driftscope_probes.mismatch.frameworks.verl_rejection import (
    VerlRejection,
    kept_tokens,
    rejection_metrics,
)
from driftscope_probes.tokens import checked_tokens


@pytest.mark.parametrize(("ratio", "kept"), [(0.24, False), (0.3, True), (1.9, True), (3.0, False)])
def test_k1_bounds_hold_the_inverse_ratio(ratio: float, kept: bool) -> None:
    pair = checked_tokens(np.array([-5.0]), np.array([-5.0 + math.log(ratio)]), [0, 1])
    tokens = unmasked_tokens(pair)
    assert kept_tokens(tokens, VerlRejection("token_k1", 4.0, 0.5)).tolist() == [kept]


def test_a_nan_is_dropped_and_takes_its_sequence_along() -> None:
    pair = checked_tokens(np.array([np.nan, -1.0, -1.0]), np.full(3, -1.0), [0, 2, 3])
    tokens = unmasked_tokens(pair)
    of_tokens, of_sequences = VerlRejection("token_k3", 0.1), VerlRejection("seq_max_k3", 0.1)
    assert kept_tokens(tokens, of_tokens).tolist() == [False, True, True]
    assert kept_tokens(tokens, of_sequences).tolist() == [False, False, True]


def test_rows_without_tokens_count_in_the_chained_share_only() -> None:
    pair = checked_tokens(np.array([-1.0]), np.array([-4.0]), [0, 0, 1])
    metrics = rejection_metrics(unmasked_tokens(pair), (VerlRejection("token_k2", 0.1),))
    assert metrics["rollout_rs_token_k2_seq_masked_fraction"] == 1.0
    assert metrics["rollout_rs_seq_masked_fraction"] == 0.5
