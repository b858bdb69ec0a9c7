"""Request of a floor: the model, the dtypes, how many tokens. Free of torch."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from driftscope_probes.dtypes import Dtype
from driftscope_probes.request_model import RequestModel, unique

#: Per dtype on a CPU without FP16 instructions, where an FP16 product takes 5 to 10 times as long.
EMULATED_FRACTION = 0.5
#: Sums of one sequence say nothing about the spread between sequences.
LEAST_SEQUENCES = 2


class FloorRequest(RequestModel):
    """What rounding alone explains for one model, every dtype against every other."""

    model: str = Field(min_length=1, max_length=500, description="catalogue name, folder or Hub id")
    dtypes: list[Dtype] = Field(["bf16", "fp16", "fp32"], min_length=1)
    prompts: int = Field(16, ge=LEAST_SEQUENCES, le=256, description="how many of ours")
    max_tokens: int = Field(32, ge=8, le=4096, description="response tokens per prompt")
    batch_size: int = Field(8, ge=2, le=256, description="sequences scored together")
    fp16_prompts: int | None = Field(
        None,
        ge=LEAST_SEQUENCES,
        le=256,
        description="of the prompts; null: half on a CPU, where FP16 is emulated",
    )
    seed: int = Field(0, ge=0, lt=2**31)
    threads: int | None = Field(None, ge=1, le=1024, description="null: every core available")

    @field_validator("dtypes")
    @classmethod
    def _unique(cls, dtypes: list[Dtype]) -> list[Dtype]:
        return unique(dtypes, "dtypes")

    @model_validator(mode="after")
    def _fp16_among_prompts(self) -> Self:
        if self.fp16_prompts is not None and self.fp16_prompts > self.prompts:
            raise ValueError(
                f"fp16_prompts is {self.fp16_prompts}, but there are {self.prompts} prompts"
            )
        return self

    def sequences(self, dtype: Dtype, *, gpu: bool) -> int:
        """How many of the prompts are scored in `dtype`."""
        if dtype != "fp16":
            return self.prompts
        if self.fp16_prompts is not None:
            return self.fp16_prompts
        if gpu:
            return self.prompts
        return max(LEAST_SEQUENCES, round(self.prompts * EMULATED_FRACTION))
