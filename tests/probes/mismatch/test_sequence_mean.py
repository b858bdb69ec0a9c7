from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from driftscope_probes.errors import TraceError
from driftscope_probes.mismatch import SequenceMean, compare
from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.resampling import sequence_means
from driftscope_probes.mismatch.sums import sequence_sums
from driftscope_probes.tokens import Tokens


@pytest.mark.parametrize("seed", range(10))
def test_each_quotient_is_the_number_of_that_name(
    seed: int, batch: Callable[[int], Tokens]
) -> None:
    pair = batch(seed)
    comparison = compare(pair.rollout, pair.trainer, pair.cu_seqlens, pair.mask, resamples=0)
    means = sequence_means(sequence_sums(token_pass(pair)))
    for name, mean in means.items():
        assert mean.sums.size == pair.cu_seqlens.size - 1
        quotient = mean.sums.sum() / mean.weights.sum()
        assert quotient == pytest.approx(comparison.value(name), rel=1e-12, abs=1e-16), name
        assert np.array_equal(comparison.sequence_mean(name).sums, mean.sums)


def test_empty_sequences_keep_their_place() -> None:
    rollout, trainer = np.full(3, -1.0), np.array([-1.25, -1.5, -1.5])
    mean = compare(rollout, trainer, [0, 0, 1, 1, 3], resamples=0).sequence_mean("abs_diff_mean")
    assert mean.sums.tolist() == [0.0, 0.25, 0.0, 1.0]
    assert mean.weights.tolist() == [0.0, 1.0, 0.0, 2.0]


def test_sums_and_weights_of_unequal_length_are_refused() -> None:
    with pytest.raises(TraceError, match="one weight per sequence"):
        SequenceMean(np.ones(3), np.ones(2))
