"""Request of an explanation: engine and trainer on the same tokens. Free of torch."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, field_validator

from driftscope_probes.dtypes import Dtype, parse_mode
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.paired.request import bounded_prompts
from driftscope_probes.prompts import Prompt
from driftscope_probes.request_model import RequestModel
from driftscope_probes.trainer.settings import Attention, Kernels, TrainerSettings

#: `decode`: the engine samples the tokens one by one, with its key-value cache; `prefill`: it reads
#: prompts and responses in one go.
Phase = Literal["prefill", "decode"]
#: Few tokens show every op: each is compared on thousands of elements.
PROMPTS: Final = 4
MAX_TOKENS: Final = 16


class ExplainTrainer(RequestModel):
    """Of the trainer's settings those that change an op."""

    kernels: Kernels = Field("stock", description="torch's kernels or our batch-invariant ones")
    attention: Attention = "sdpa"
    threads: int | None = Field(None, ge=1, le=1024, description="None: as the engine")

    @property
    def settings(self) -> TrainerSettings:
        return TrainerSettings(**self.model_dump())


class ExplainRequest(RequestModel):
    """Which operation makes the gap between engine and trainer, and for what reason."""

    model: str = Field(min_length=1, max_length=500, description="catalogue name, folder or Hub id")
    trainer_model: str | None = Field(
        None,
        min_length=1,
        max_length=500,
        description="the trainer's own model; null: as the engine's",
    )
    prompts: list[Prompt] | int = Field(PROMPTS, description="the prompts, or how many of ours")
    chat_template: bool | None = Field(None, description="None: where the tokenizer has one")
    engine_dtype: Dtype = "bf16"
    trainer_dtype: str = Field("bf16", description="bf16, fp16, fp32, autocast-bf16, …")
    phase: Phase = Field("prefill", description="how the engine gets to its numbers")
    full_vocab: bool = Field(False, description="compare whole distributions too")
    backward: bool = Field(True, description="the gradients of the trainer's ops too")
    sampling: SamplingSettings = SamplingSettings(max_tokens=MAX_TOKENS)
    engine: EngineSettings = EngineSettings()
    trainer: ExplainTrainer = ExplainTrainer()

    @field_validator("prompts")
    @classmethod
    def _bounded(cls, prompts: list[Prompt] | int) -> list[Prompt] | int:
        return bounded_prompts(prompts)

    @field_validator("trainer_dtype")
    @classmethod
    def _known_mode(cls, mode: str) -> str:
        return parse_mode(mode).name
