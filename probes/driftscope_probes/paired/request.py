"""Request of a paired probe: model, prompts, dtypes, settings of both sides. Free of torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from driftscope_probes.dtypes import Dtype, parse_mode
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.prompts import MAX_PROMPT_CHARACTERS, Prompt
from driftscope_probes.request_model import RequestModel, unique
from driftscope_probes.trainer.settings import TrainerSettings

MAX_PROMPTS = 4096
#: How the adapter gets into the engine. off: not at all, the engine runs `model` as it is, which
#: may be merged already. merged-…: merged into `model` here, in float32, and rounded to that dtype
#: once. vllm: kept apart, by vLLM's own LoRA.
EngineAdapter = Literal["off", "merged-fp32", "merged-bf16", "unmerged"]


class PairedRequest(RequestModel):
    """One grid: every engine dtype against every trainer mode."""

    model: str = Field(min_length=1, max_length=500, description="catalogue name, folder or Hub id")
    trainer_model: str | None = Field(
        None,
        min_length=1,
        max_length=500,
        description="the trainer's own model, or an adapter's base; null: as the engine's",
    )
    adapter: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="folder of a LoRA adapter that the trainer adds to its model, unmerged",
    )
    engine_adapter: EngineAdapter = Field(
        "off", description="how the adapter gets into the engine; off: it runs its model as it is"
    )
    prompts: list[Prompt] | int = Field(8, description="the prompts, or how many of ours")
    chat_template: bool | None = Field(None, description="None: where the tokenizer has one")
    engine_dtypes: list[Dtype] = Field(["bf16", "fp16", "fp32"], min_length=1)
    trainer_dtypes: list[str] = Field(["bf16", "fp16", "fp32"], min_length=1)
    sampling: SamplingSettings = SamplingSettings()
    engine: EngineSettings = EngineSettings()
    trainer: TrainerSettings = TrainerSettings()
    resamples: int = Field(2000, ge=0, le=100_000, description="for the 95 % intervals; 0: none")

    @property
    def other_weights(self) -> bool:
        """Whether the trainer's weights are not simply the engine's."""
        return self.trainer_model is not None or self.adapter is not None

    @field_validator("prompts")
    @classmethod
    def _bounded(cls, prompts: list[Prompt] | int) -> list[Prompt] | int:
        return bounded_prompts(prompts)

    @model_validator(mode="after")
    def _engine_can_adapt(self) -> Self:
        asked, engine = self.engine_adapter, self.engine
        if asked == "off":
            return self
        if self.adapter is None:
            raise ValueError(f"engine_adapter {asked} needs the adapter that it is about (adapter)")
        if engine.kind == "vllm-server":
            raise ValueError(
                f"engine_adapter {asked} is for an engine that is started here; a running server "
                "has its own weights: leave it off"
            )
        if asked == "unmerged" and engine.kind != "vllm":
            raise ValueError(
                f"engine_adapter unmerged is vLLM's own LoRA, the engine is {engine.kind}: choose "
                "engine vllm, or merged-fp32 or merged-bf16"
            )
        if asked == "unmerged" and engine.kernels == "invariant":
            raise ValueError(
                "engine_adapter unmerged runs vLLM's own products for the adapter: choose kernels "
                "stock, or merged-fp32 or merged-bf16"
            )
        return self

    @field_validator("trainer_dtypes")
    @classmethod
    def _known_modes(cls, modes: list[str]) -> list[str]:
        return unique([parse_mode(mode).name for mode in modes], "trainer_dtypes")

    @field_validator("engine_dtypes")
    @classmethod
    def _unique_dtypes(cls, dtypes: list[Dtype]) -> list[Dtype]:
        return unique(dtypes, "engine_dtypes")


def bounded_prompts(prompts: list[Prompt] | int) -> list[Prompt] | int:
    """Prompts, or how many of ours. Raises ValueError for too many, an empty or a huge one."""
    count = prompts if isinstance(prompts, int) else len(prompts)
    if not 1 <= count <= MAX_PROMPTS:
        raise ValueError(f"{count} prompts given, 1 to {MAX_PROMPTS} are accepted")
    if isinstance(prompts, list):
        for index, prompt in enumerate(prompts):
            _check_prompt(index, prompt)
    return prompts


def _check_prompt(index: int, prompt: Prompt) -> None:
    text = prompt if isinstance(prompt, str) else "".join(message.content for message in prompt)
    if not text.strip():
        raise ValueError(f"prompt {index} is empty; give at least one visible character")
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise ValueError(
            f"prompt {index} has {len(text)} characters, at most {MAX_PROMPT_CHARACTERS} "
            "are accepted"
        )
