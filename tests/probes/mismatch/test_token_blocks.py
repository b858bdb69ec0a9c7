from __future__ import annotations

import numpy as np
import pytest

from driftscope_probes.mismatch.binary_kl_terms import binary_kl_terms
from driftscope_probes.mismatch.js_terms import js_terms
from driftscope_probes.mismatch.k3 import k3_terms
from driftscope_probes.mismatch.token_blocks import BLOCK_TOKENS, by_blocks


@pytest.mark.parametrize("size", [0, 1, BLOCK_TOKENS - 1, BLOCK_TOKENS, 2 * BLOCK_TOKENS + 5])
def test_bit_for_bit_what_one_pass_gives(size: int) -> None:
    rng = np.random.default_rng(size)
    rollout = -rng.exponential(size=size)
    diff = rng.normal(size=size) * 10.0 ** rng.uniform(-8, 1, size)
    assert np.array_equal(by_blocks(k3_terms, diff), k3_terms(diff))
    assert np.array_equal(by_blocks(js_terms, diff), js_terms(diff))
    trainer = rollout + diff
    assert np.array_equal(
        by_blocks(binary_kl_terms, rollout, trainer), binary_kl_terms(rollout, trainer)
    )
