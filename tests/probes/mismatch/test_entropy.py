from __future__ import annotations

import math

import numpy as np

from driftscope_probes.mismatch import Extras, compare
from driftscope_probes.mismatch.number import NO_TOKENS, OVERFLOW
from driftscope_probes.mismatch.staleness import NOT_POSITIVE, mismatch_entropy


def test_mean_k3_over_mean_entropy_of_the_tokens_that_count() -> None:
    rollout, trainer = np.array([-1.0, -2.0, -3.0, np.nan]), np.array([-1.5, -2.0, -9.0, -1.0])
    extras = Extras(entropy=np.array([0.25, 0.75, np.nan, np.nan]))
    mask = np.array([True, True, False, True])
    found = compare(rollout, trainer, [0, 4], mask, resamples=0, extras=extras)
    assert found.value("entropy_mean") == 0.5
    k3 = (math.expm1(-0.5) + 0.5) / 2
    assert math.isclose(float(found.to_dict()["kl_k3_entropy_ratio"]), k3 / 0.5, rel_tol=1e-12)


def test_reasons_instead_of_infinities() -> None:
    assert mismatch_entropy(np.zeros(3), 0.1).kl_k3_entropy_ratio == NOT_POSITIVE
    assert mismatch_entropy(np.array([1.0, np.nan]), 0.1).kl_k3_entropy_ratio == OVERFLOW
    assert mismatch_entropy(np.ones(3), OVERFLOW).kl_k3_entropy_ratio == OVERFLOW
    assert mismatch_entropy(np.zeros(0), NO_TOKENS).entropy_mean == NO_TOKENS
