from __future__ import annotations

import math

import numpy as np

from driftscope_probes.mismatch.paired_logprobs import paired_logprobs
from driftscope_probes.mismatch.token_counts import NARROW_BAND, PPO_BAND, WIDE_BAND, token_counts
from driftscope_probes.mismatch.token_differences import token_differences


def test_bands_are_closed() -> None:
    edges = np.array([*WIDE_BAND, *NARROW_BAND, *PPO_BAND, 1.0])
    tokens = token_differences(paired_logprobs(np.zeros(7), np.zeros(7), [0, 7]))
    tokens.ratio[:] = edges
    counts = token_counts(tokens)
    assert (counts.ratio_above_wide, counts.ratio_below_wide) == (0, 0)
    assert (counts.ratio_outside_narrow, counts.ratio_outside_ppo) == (4, 2)
    tokens.ratio[:2] = np.nextafter(edges[:2], [0.0, 3.0])
    counts = token_counts(tokens)
    assert (counts.ratio_above_wide, counts.ratio_below_wide) == (1, 1)


def test_exactly_ln_2_is_not_beyond_it() -> None:
    diff = np.array([math.log(2), -math.log(2), 0.7, -0.7])
    counts = token_counts(token_differences(paired_logprobs(np.zeros(4), diff, [0, 4])))
    assert counts.extreme_diff == 2


def test_shards_add_up() -> None:
    rng = np.random.default_rng(2)
    rollout, trainer = -rng.random(90) * 3, -rng.random(90) * 30
    first, second, whole = (
        token_counts(token_differences(paired_logprobs(r, t, [0, r.size])))
        for r, t in (
            (rollout[:40], trainer[:40]),
            (rollout[40:], trainer[40:]),
            (rollout, trainer),
        )
    )
    assert first.merged(second) == whole
    assert whole.chi2_saturated and whole.confident_disagreements
