from __future__ import annotations

import math

import numpy as np

from driftscope_probes.mismatch.counts import token_counts
from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.terms import NARROW_BAND, PPO_BAND, WIDE_BAND
from driftscope_probes.tokens import checked_tokens


def test_bands_are_closed() -> None:
    edges = np.log([*WIDE_BAND, *NARROW_BAND, *PPO_BAND, 1.0])
    pair = checked_tokens(np.zeros(7), edges, [0, 7])
    counts = token_counts(token_pass(pair))
    assert (counts.ratio_above_wide, counts.ratio_below_wide) == (0, 0)
    assert counts.ratio_outside_narrow >= 4 and counts.ratio_outside_ppo >= 2
    # A few units in the last place further out: rounding of exp cannot bring these back.
    beyond = edges + 1e-14 * np.sign(edges)
    counts = token_counts(token_pass(checked_tokens(np.zeros(7), beyond, [0, 7])))
    assert (counts.ratio_above_wide, counts.ratio_below_wide) == (1, 1)
    assert (counts.ratio_outside_narrow, counts.ratio_outside_ppo) == (6, 4)


def test_exactly_ln_2_is_not_beyond_it() -> None:
    diff = np.array([math.log(2), -math.log(2), 0.7, -0.7])
    counts = token_counts(token_pass(checked_tokens(np.zeros(4), diff, [0, 4])))
    assert counts.extreme_diff == 2


def test_shards_add_up() -> None:
    rng = np.random.default_rng(2)
    rollout, trainer = -rng.random(90) * 3, -rng.random(90) * 30
    first, second, whole = (
        token_counts(token_pass(checked_tokens(r, t, [0, r.size])))
        for r, t in (
            (rollout[:40], trainer[:40]),
            (rollout[40:], trainer[40:]),
            (rollout, trainer),
        )
    )
    assert first.merged(second) == whole
    assert whole.chi2_saturated and whole.confident_disagreements
