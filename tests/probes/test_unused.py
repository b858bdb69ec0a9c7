from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from driftscope_probes.diagnosis.settings import NAMES
from driftscope_probes.push.pushed_step import pushed_step
from driftscope_probes.unused import unused_inputs

ARRAYS = {
    "rollout_logprobs": -np.ones(4, np.float32),
    "trainer_logprobs": -np.ones(4, np.float32),
    "cu_seqlens": np.array([0, 2, 4]),
}


def named(metadata: dict[str, str], **tensors: Any) -> set[str]:
    return {one.name for one in unused_inputs(pushed_step({**ARRAYS, **tensors}, metadata))}


@pytest.mark.parametrize(
    ("tensors", "metadata", "expected"),
    [
        ({}, {}, set()),
        ({"behavior_version": np.array([1, 1])}, {}, {"behavior_version"}),
        (
            {"behavior_version": np.array([1, 1])},
            {"weights_version": "a hash"},
            {"behavior_version"},
        ),
        ({"behavior_version": np.array([1, 1])}, {"weights_version": "2"}, set()),
        ({"rollout_token_ids": np.arange(4)}, {}, {"rollout_token_ids"}),
        ({"rollout_token_ids": np.arange(4), "token_ids": np.arange(4)}, {}, set()),
        (
            {"environment": np.array([0, 0])},
            {"environments": "math,code"},
            {"metadata environments"},
        ),
        ({"turn_ids": np.arange(4), "position_ids": np.arange(4)}, {}, set()),
        ({}, {"colour": "blue"}, {"metadata colour"}),
    ],
)
def test_what_nothing_reads(
    tensors: dict[str, Any], metadata: dict[str, str], expected: set[str]
) -> None:
    assert named(metadata, **tensors) == expected


def test_every_setting_that_a_diagnosis_reads_is_used() -> None:
    every = {name: "1" for names in NAMES.values() for name in names}
    assert named({**every, "Top_P": "0.9"}) == set()
