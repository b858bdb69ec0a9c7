from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.histogram import (
    MAX_SEQUENCE_POINTS,
    SequencePoints,
    sequence_points,
)
from driftscope_probes.mismatch.sums import sequence_sums
from driftscope_probes.tokens import checked_tokens


def points(diff: list[float], limits: list[int]) -> SequencePoints:
    rollout = np.full(len(diff), -1.0)
    pair = checked_tokens(rollout, rollout + np.array(diff), limits)
    return sequence_points(sequence_sums(token_pass(pair)))


def test_every_sequence_with_tokens_is_a_point() -> None:
    found = points([0.5, 0.25, -1.0], [0, 2, 2, 3])
    assert found.to_dict() == {"length": [2, 1], "seq_logratio": [0.75, -1.0]}


def test_many_sequences_are_bounded_and_keep_their_extremes() -> None:
    diff = [0.0] * 3000
    diff[1234], diff[2001] = 5.0, -7.0
    found = points(diff, list(range(3001)))
    assert 0.9 * MAX_SEQUENCE_POINTS < found.length.size <= MAX_SEQUENCE_POINTS
    assert (found.seq_logratio.max(), found.seq_logratio.min()) == (5.0, -7.0)
