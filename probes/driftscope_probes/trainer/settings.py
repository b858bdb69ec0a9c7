"""What decides the trainer's numbers, validated. Free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Attention = Literal["sdpa", "eager"]
Batching = Literal["padded", "packed"]
PaddingSide = Literal["left", "right"]
#: "invariant": driftscope's batch-invariant kernels, forward and backward (CPU only).
Kernels = Literal["stock", "invariant"]


class TrainerSettings(BaseModel):
    """Options of the training-mode forward that change numerics, and its extra measurements."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
