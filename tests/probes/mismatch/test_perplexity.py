from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from driftscope_probes.mismatch import compare
from driftscope_probes.tokens import Tokens


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
    compared: Callable[[Tokens], dict[str, Any]],
) -> None:
    pair = batch(seed)
    rollout = [-math.fsum(r for _, r, _ in s) / len(s) for s in plain(pair)]
    training = [-math.fsum(t for _, _, t in s) / len(s) for s in plain(pair)]
    differences = [-math.fsum(t - r for _, r, t in s) / len(s) for s in plain(pair)]
    n = len(rollout)
    expected = {
        "training_ppl": math.fsum(map(math.exp, training)) / n,
        "training_log_ppl": math.fsum(training) / n,
        "rollout_ppl": math.fsum(map(math.exp, rollout)) / n,
        "rollout_log_ppl": math.fsum(rollout) / n,
        "log_ppl_diff_mean": math.fsum(differences) / n,
        "log_ppl_diff_abs_mean": math.fsum(map(abs, differences)) / n,
        "log_ppl_diff_max": max(differences),
        "log_ppl_diff_min": min(differences),
        "ppl_ratio": math.fsum(map(math.exp, differences)) / n,
    }
    found = compared(pair)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-15), name


def test_the_sign_says_who_is_more_surprised() -> None:
    found = compare(np.array([-1.0, -1.0]), np.array([-2.0, -4.0]), [0, 2], resamples=0)
    assert found.value("log_ppl_diff_mean") == 2.0
    assert found.value("ppl_ratio") == pytest.approx(math.exp(2))
