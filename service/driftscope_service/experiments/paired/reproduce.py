"""The command line that reproduces a paired report.

In: the request of the report. Out: one shell command, and what it cannot say.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.paired.request import PairedRequest
from driftscope_probes.trainer.settings import TrainerSettings

PROMPT_FILE = "prompts.jsonl"
#: Always written out: readers look for them first, and a later version's defaults may differ.
_ALWAYS = {"max_tokens", "seed"}
_VALUE_OPTIONS = {"kind": "--engine"}
_SWITCHES = {"compile": ("--compile", "--enforce-eager")}
#: One option of the command line sets these for both sides.
_SHARED = ("threads", "seed", "kernels")
_OWN = ("trainer_model", "adapter", "engine_adapter", "chat_template", "resamples")


@dataclass(frozen=True, slots=True)
class Reproduction:
    command: str
    needs_prompt_file: bool  # the prompts were given, so that a file must hold them
    remarks: tuple[str, ...]


def reproduction(request: PairedRequest) -> Reproduction:
    custom = not isinstance(request.prompts, int)
    words = ["driftscope", "probe", "paired", "--model", request.model]
    words += ["--engine-dtypes", ",".join(request.engine_dtypes)]
    words += ["--trainer-dtypes", ",".join(request.trainer_dtypes)]
    words += ["--prompts", PROMPT_FILE if custom else str(request.prompts)]
    words += _options(request.sampling.model_dump(), SamplingSettings().model_dump())
    words += _options(request.model_dump(include={*_OWN}), _request_defaults())
    words += _options(request.engine.model_dump(), EngineSettings().model_dump())
    trainer = {name: v for name, v in request.trainer.model_dump().items() if name not in _SHARED}
    words += _options(trainer, TrainerSettings().model_dump())
    return Reproduction(shlex.join(words), custom, tuple(_remarks(request)))


def _options(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        if name not in _ALWAYS and value == defaults.get(name):
            continue
        option = _VALUE_OPTIONS.get(name, "--" + name.replace("_", "-"))
        if isinstance(value, bool):
            on, off = _SWITCHES.get(name, (option, "--no-" + option.removeprefix("--")))
            yield on if value else off
        elif value is not None:
            yield option
            yield str(value)


def _remarks(request: PairedRequest) -> Iterator[str]:
    engine, trainer = request.engine, request.trainer
    if engine.threads != trainer.threads:
        yield (
            f"The trainer ran with {trainer.threads or 'all'} threads, the engine with "
            f"{engine.threads or 'all'}: the command line gives one number to both."
        )
    if engine.kernels != trainer.kernels:
        yield (
            f"The trainer ran with {trainer.kernels} kernels, the engine with {engine.kernels}: "
            "the command line gives one choice to both."
        )
    if request.sampling.seed != trainer.seed:
        yield (
            f"The trainer's own seed was {trainer.seed} (it matters only with dropout): the "
            "command line gives one seed to both sides."
        )


def _request_defaults() -> dict[str, Any]:
    fields = PairedRequest.model_fields
    return {name: fields[name].default for name in _OWN}
