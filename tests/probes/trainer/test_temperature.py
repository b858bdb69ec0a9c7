import pytest

from driftscope_probes.errors import TrainerError
from driftscope_probes.trace import TraceMeta
from driftscope_probes.trainer.settings import trainer_temperature


def meta(**settings: object) -> TraceMeta:
    return TraceMeta("rollout", "m", "bf16", "vllm", "0", settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"logprobs_mode": "processed_logprobs", "temperature": 0.7}, 0.7),
        ({"logprobs_mode": "processed_logprobs", "temperature": 2}, 2.0),
        ({"logprobs_mode": "processed_logprobs", "temperature": 0.0}, 1.0),
        ({"logprobs_mode": "raw_logprobs", "temperature": 0.7}, 1.0),
        ({}, 1.0),
    ],
)
def test_only_processed_logprobs_carry_the_temperature(
    settings: dict[str, object], expected: float
) -> None:
    assert trainer_temperature(meta(**settings)) == expected


def test_processed_logprobs_without_a_temperature_are_refused() -> None:
    with pytest.raises(TrainerError, match="its temperature is None"):
        trainer_temperature(meta(logprobs_mode="processed_logprobs"))
