"""Questions to a trainer session cross the pipe as JSON, and its values as bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from driftscope_probes.models.adapter import AdaptedLayer, Adapter
from driftscope_probes.trainer.question import Forward, Question, from_bits, to_bits
from driftscope_probes.trainer.settings import TrainerSettings

PLAIN = Forward(Path("model"), "bf16", TrainerSettings(micro_batch=4, padding_side="left"))
LAYER = AdaptedLayer("model.layers.0.mlp.up_proj", 8, 2.0, "a", "b")


@pytest.mark.parametrize(
    "forward",
    [
        PLAIN,
        replace(PLAIN, reference=True),
        replace(PLAIN, quiet=True, norm_epsilon=1e-6, norm_cast="after_weight", weights_as="bf16"),
        replace(PLAIN, adapter=Adapter(Path("adapter"), None, 0.1, (LAYER,), "print")),
    ],
)
def test_a_question_is_the_same_on_the_other_side(forward: Forward) -> None:
    rollout = {"logprobs_mode": "raw_logprobs", "temperature": 1.0}
    question = Question(forward, ((1, 2), (3,)), ((4,), ()), rollout)
    assert Question.from_dict(json.loads(json.dumps(question.to_dict()))) == question


def test_values_keep_every_bit() -> None:
    values = np.array([-0.1, -1e-30, -np.inf, np.nan], np.float32)
    sent = json.loads(json.dumps(to_bits(values), allow_nan=False))
    assert np.array_equal(from_bits(sent).view(np.uint32), values.view(np.uint32))
