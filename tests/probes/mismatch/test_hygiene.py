from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.counts import Hygiene, hygiene
from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.tokens import checked_tokens


def test_every_oddity_is_counted_once_and_nothing_masked_is() -> None:
    inf, nan = np.inf, np.nan
    #                   seq 0 ------------------  seq 1 ---  seq 2: empty  seq 3 ----  seq 4
    rollout = np.array([-1.0, 0.0, nan, 0.5, -1.0, nan, -inf, -0.0, inf, nan], np.float32)
    trainer = np.array([-1.0, -0.0, -1.0, 2.0, inf, -1.0, -1.0, 0.1, 0.0, inf], np.float32)
    mask = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0, 0], bool)
    pair = checked_tokens(rollout, trainer, [0, 5, 7, 7, 9, 10], mask)
    assert hygiene(pair, token_pass(pair)) == Hygiene(
        tokens=4,
        sequences=2,
        masked_tokens=2,
        nonfinite_tokens=4,
        nonfinite_sequences=2,
        empty_sequences=3,
        rollout_nonfinite=3,
        trainer_nonfinite=1,
        rollout_zero=2,
        trainer_zero=1,
        rollout_positive=1,
        trainer_positive=2,
        rollout_nan=2,
        trainer_nan=0,
        rollout_minus_infinity=1,
        trainer_minus_infinity=0,
        rollout_plus_infinity=0,
        trainer_plus_infinity=1,
        rollout_sentinel=0,
        trainer_sentinel=0,
        rollout_zero_unmatched=0,
        trainer_zero_unmatched=0,
        rollout_highest=0.5,
        trainer_highest=2.0,
    )
