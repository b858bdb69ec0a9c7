"""Request of a diagnosis by controls: the two sides, the budget, what is known. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field, field_validator

from driftscope_probes.diagnosis.controls.measurement import Outcome
from driftscope_probes.dtypes import Dtype, parse_mode
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.errors import RequestError
from driftscope_probes.paired.request import EngineAdapter, bounded_prompts
from driftscope_probes.prompts import Prompt
from driftscope_probes.request_model import RequestModel
from driftscope_probes.trainer.settings import (
    Attention,
    Batching,
    Kernels,
    PaddingSide,
    TrainerSettings,
)

#: What both sides compute in where neither the request nor the step says it: most trainers do.
USUAL_DTYPE: Final[Dtype] = "bf16"
#: Checkpoints of earlier steps; each costs a forward, and a lag of more is found by its trend.
MOST_OLDER: Final = 16
#: So many controls are there at most; more outcomes would be a mistake.
MOST_GIVEN: Final = 100


class DiagnoseTrainer(RequestModel):
    """Of the trainer's settings those that change a log-probability."""

    kernels: Kernels = Field("stock", description="torch's kernels or our batch-invariant ones")
    attention: Attention = "sdpa"
    micro_batch: int = Field(1, ge=1, le=1024, description="sequences per forward pass")
    batching: Batching = Field("padded", description="how sequences share a forward pass")
    padding_side: PaddingSide = "right"
    threads: int | None = Field(None, ge=1, le=1024, description="None: every core available")
    seed: int = Field(0, ge=0, lt=2**31, description="dropout, where the model has any")

    @property
    def settings(self) -> TrainerSettings:
        return TrainerSettings(**self.model_dump())


class DiagnoseRequest(RequestModel):
    """Which cause, found by running controls on a live pair of engine and trainer."""

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
        "off", description="how the adapter gets into the engine; off: `model` is all it has"
    )
    older_models: list[str] = Field(
        [], max_length=MOST_OLDER, description="checkpoints of earlier steps, newest first"
    )
    budget: int = Field(300, ge=1, le=86_400, description="seconds; a control begun is finished")
    control: list[str] = Field(
        [],
        max_length=MOST_GIVEN,
        description="outcomes of controls that were run elsewhere: prefix_cache_off=clean",
    )
    prompts: list[Prompt] | int = Field(8, description="the prompts, or how many of ours")
    chat_template: bool | None = Field(None, description="None: where the tokenizer has one")
    engine_dtype: Dtype | None = Field(None, description="null: as the step says it, else bf16")
    trainer_dtype: str | None = Field(
        None, description="bf16, fp16, fp32, autocast-bf16, …; null: as the step, else bf16"
    )
    sampling: SamplingSettings = SamplingSettings()
    engine: EngineSettings = EngineSettings()
    trainer: DiagnoseTrainer = DiagnoseTrainer()

    @field_validator("prompts")
    @classmethod
    def _bounded(cls, prompts: list[Prompt] | int) -> list[Prompt] | int:
        return bounded_prompts(prompts)

    @field_validator("trainer_dtype")
    @classmethod
    def _known_mode(cls, mode: str | None) -> str | None:
        return None if mode is None else parse_mode(mode).name

    @field_validator("control", mode="before")
    @classmethod
    def _as_words(cls, given: Any) -> Any:
        """A mapping of names to outcomes says the same."""
        if isinstance(given, Mapping):
            return [f"{name}={outcome}" for name, outcome in given.items()]
        return given

    @field_validator("control")
    @classmethod
    def _outcomes(cls, given: list[str]) -> list[str]:
        try:
            outcomes_of(given)
        except RequestError as error:
            raise ValueError(f"{error.message} {error.remedy}") from error
        return given

    @property
    def outcomes(self) -> dict[str, Outcome]:
        return outcomes_of(self.control)


def outcomes_of(given: list[str]) -> dict[str, Outcome]:
    """By name of the control. Raises RequestError."""
    from driftscope_probes.diagnosis.controls.registry import BY_NAME

    found: dict[str, Outcome] = {}
    for word in given:
        name, _, outcome = word.partition("=")
        if outcome not in ("clean", "dirty"):
            raise RequestError(
                f"{word[:80]!r} gives no outcome.",
                remedy="write NAME=clean or NAME=dirty, in lower case.",
            )
        if name not in BY_NAME:
            raise RequestError(
                f"there is no control {name[:80]!r}.",
                remedy="driftscope diagnose --controls lists them.",
            )
        if found.get(name, outcome) != outcome:
            raise RequestError(f"{name} is said to be both clean and dirty.", remedy="say one.")
        found[name] = "clean" if outcome == "clean" else "dirty"
    return found
