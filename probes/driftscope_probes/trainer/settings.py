"""What decides the trainer's numbers: settings and temperature, validated. Free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from driftscope_probes.errors import TrainerError
from driftscope_probes.request_model import RequestModel
from driftscope_probes.trace import TraceMeta

Attention = Literal["sdpa", "eager"]
Batching = Literal["padded", "packed"]
PaddingSide = Literal["left", "right"]
#: "invariant": driftscope's batch-invariant kernels, forward and backward (CPU only).
Kernels = Literal["stock", "invariant"]


class TrainerSettings(RequestModel):
    """Options of the training-mode forward that change numerics, and its extra measurements."""

    kernels: Kernels = Field("stock", description="torch's kernels or our batch-invariant ones")
    attention: Attention = "sdpa"
    micro_batch: int = Field(1, ge=1, le=1024, description="sequences per forward pass")
    batching: Batching = Field("padded", description="how sequences share a forward pass")
    padding_side: PaddingSide = "right"
    threads: int | None = Field(None, ge=1, le=1024, description="None: every core available")
    seed: int = Field(0, ge=0, lt=2**31, description="dropout, where the model has any")
    backward: bool = Field(False, description="also the gradient of a policy-gradient loss")
    headroom: bool = Field(True, description="measure the room that FP16 leaves")
    headroom_sequences: int = Field(2, ge=1, le=64)


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
