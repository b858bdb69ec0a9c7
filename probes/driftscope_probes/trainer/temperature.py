"""The temperature by which the trainer divides its logits, from what the rollout recorded."""

from __future__ import annotations

from driftscope_probes.errors import TrainerError
from driftscope_probes.trace import TraceMeta

#: vLLM's `logprobs_mode` that reports log-probabilities behind temperature and penalties.
PROCESSED = "processed_logprobs"


def trainer_temperature(rollout: TraceMeta) -> float:
    """The rollout's temperature if its log-probabilities are processed ones, else 1.

    Greedy decoding (temperature 0) leaves the logits as they are, in vLLM as well. Raises
    TrainerError when the rollout does not say how it scaled.
    """
    if rollout.settings.get("logprobs_mode") != PROCESSED:
        return 1.0
    temperature = rollout.settings.get("temperature")
    if not isinstance(temperature, int | float):
        raise TrainerError(
            f"the rollout's log-probabilities are processed, but its temperature is {temperature}.",
            remedy="record the sampling temperature in the rollout's settings.",
        )
    return float(temperature) if temperature > 0 else 1.0
