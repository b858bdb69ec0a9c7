from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.report_profiles import binned_differences
from driftscope_probes.mismatch.token_differences import token_differences
from driftscope_probes.tokens import checked_tokens


def test_means_by_bin_and_null_for_an_empty_bin() -> None:
    trainer = np.array([-0.5, -1.5, -1.25])
    tokens = token_differences(checked_tokens(np.full(3, -1.0), trainer, [0, 3]))
    binned = binned_differences(tokens, np.array([0, 0, 2]), np.array([0.0, 1.0, 2.0, 3.0]))
    assert binned.to_dict() == {
        "edges": [0.0, 1.0, 2.0, 3.0],
        "counts": [2, 0, 1],
        "abs_diff_mean": [0.5, None, 0.25],
        "diff_mean": [0.0, None, -0.25],
    }
