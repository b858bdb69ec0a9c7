from __future__ import annotations

from typing import Any

import numpy as np

from driftscope_probes.mismatch.frameworks.small_frameworks import torchtitan
from driftscope_probes.mismatch.frameworks.unmasked_tokens import unmasked_tokens


def test_equals_an_oracle(batches: Any, oracle: Any) -> None:
    for pair, rows in batches:
        diffs = [trainer - rollout for row in rows for rollout, trainer in row]
        different = [float(abs(d) > 1e-6) for d in diffs]
        expected = {
            "bit_wise/logprob_diff/mean": oracle.mean(diffs),
            "bit_wise/logprob_diff/max": max(abs(d) for d in diffs),
            "bit_wise/ratio_tokens_different/mean": oracle.mean(different),
            "loss/ratio_mean": oracle.mean([oracle.exp(d) for d in diffs]),
        }
        with np.errstate(all="ignore"):
            oracle.agrees(torchtitan(unmasked_tokens(pair)), expected)
