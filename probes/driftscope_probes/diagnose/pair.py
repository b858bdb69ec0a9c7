"""Pair: the live engine and trainer that a request names, and what is known beside them.

In: a DiagnoseRequest, folders that were resolved already, what a step brings. Out: Sides and Known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from driftscope_probes.diagnose.recorded import StepData
from driftscope_probes.diagnose.request import USUAL_DTYPE, DiagnoseRequest
from driftscope_probes.diagnosis.controls.sides import Known, Sides, Tokens
from driftscope_probes.diagnosis.floor import prior_floor
from driftscope_probes.dtypes import Dtype, parse_mode
from driftscope_probes.errors import RequestError
from driftscope_probes.floor.store import FloorStore
from driftscope_probes.models.checks import CONFIG_NAME
from driftscope_probes.models.fetch import resolve
from driftscope_probes.models.folder import ModelFolder
from driftscope_probes.models.json_file import read_json
from driftscope_probes.paired.request import PairedRequest
from driftscope_probes.paired.weights import trainer_weights
from driftscope_probes.progress import ProgressSink
from driftscope_probes.prompts import demo_prompts
from driftscope_probes.tokenization import check_context, tokenize

#: Of any model's own config.json; published ones have some kilobytes.
MOST_CONFIG_BYTES: Final = 8 * 2**20
#: How architectures call their number of experts: Qwen and OLMoE, Mixtral, DeepSeek.
EXPERTS: Final = ("num_experts", "num_local_experts", "n_routed_experts")
#: Parts of the names of layers that keep a recurrent state.
STATES: Final = ("linear", "mamba", "ssm", "recurrent", "conv")


@dataclass(frozen=True, slots=True)
class Folders:
    """Of models whose names the caller has resolved; None: the request's name is looked up."""

    model: Path | None = None
    trainer_model: Path | None = None
    older_models: tuple[Path | None, ...] = ()
    floors: Path | None = None  # None: priors


@dataclass(frozen=True, slots=True)
class Pair:
    model: ModelFolder
    sides: Sides
    known: Known


def pair_of(
    request: DiagnoseRequest, folders: Folders, data: StepData | None, progress: ProgressSink
) -> Pair:
    """Raises ProbeError."""
    model = resolve(str(folders.model) if folders.model else request.model, progress=progress)
    weights = trainer_weights(
        PairedRequest(
            model=request.model, trainer_model=request.trainer_model, adapter=request.adapter
        ),
        model,
        folders.trainer_model,
    )
    places = folders.older_models or (None,) * len(request.older_models)
    older = tuple(
        resolve(str(place) if place else name).path
        for name, place in zip(request.older_models, places, strict=True)
    )
    recorded = None if data is None else data.recorded
    if recorded is None:
        prompts = _prompts(request, model)
    else:
        prompts = recorded.sequences.prompts
        _check_vocabulary(recorded.sequences.prompts + recorded.sequences.responses, model)
    dtype, mode = dtypes_of(request, data)
    config = read_json(model.path / CONFIG_NAME, MOST_CONFIG_BYTES)
    sides = Sides(
        engine_model=model.path,
        trainer_model=weights.model.path,
        engine=request.engine,
        trainer=request.trainer.settings,
        engine_dtype=dtype,
        trainer_mode=mode,
        sampling=request.sampling,
        prompts=prompts,
        older_models=older,
        adapter=weights.adapter,
        engine_adapter=request.engine_adapter,
    )
    floor = None
    if folders.floors is not None:
        floor = FloorStore(folders.floors).find(
            request.model, dtype, mode, fingerprint=model.fingerprint
        )
    moe = has_experts(config)
    known = Known(
        floor=floor or prior_floor(dtype, mode, moe=moe, model=request.model),
        recorded=recorded,
        mixture_of_experts=moe,
        hybrid=has_state(config),
        restartable=request.engine.kind != "vllm-server",
    )
    return Pair(model, sides, known)


def dtypes_of(request: DiagnoseRequest, data: StepData | None) -> tuple[Dtype, str]:
    """What the request says, else the step, else bf16."""
    engine = request.engine_dtype
    if engine is None:
        engine = _dtype(None if data is None else data.rollout_dtype)
    trainer = request.trainer_dtype
    if trainer is None:
        trainer = _dtype(None if data is None else data.trainer_dtype)
    return engine, parse_mode(trainer).name


def _dtype(said: str | None) -> Literal["bf16", "fp16", "fp32"]:
    """FP8 weights are served in 16 bits here: only what a plain forward has is run."""
    if said == "fp16":
        return "fp16"
    return "fp32" if said == "fp32" else USUAL_DTYPE


def _prompts(request: DiagnoseRequest, model: ModelFolder) -> Tokens:
    given = request.prompts
    prompts = demo_prompts(given) if isinstance(given, int) else given
    batch = tokenize(model.path, prompts, chat_template=request.chat_template)
    check_context(batch, request.sampling.max_tokens, model.max_context)
    return tuple(tuple(batch.ids(index)) for index in range(len(batch)))


def _check_vocabulary(tokens: Tokens, model: ModelFolder) -> None:
    largest = max((max(one) for one in tokens if one), default=0)
    if largest >= model.vocab_size:
        raise RequestError(
            f"the step has the token {largest}, {model.name} has {model.vocab_size} tokens.",
            remedy="give the model that the step was sampled from.",
        )


def has_experts(config: Mapping[str, Any]) -> bool:
    found = (config.get(name) for name in EXPERTS)
    return any(isinstance(count, int) and count > 1 for count in found)


def has_state(config: Mapping[str, Any]) -> bool:
    """Layers that keep a recurrent state beside or instead of attention."""
    kinds = config.get("layer_types")
    named = " ".join(map(str, kinds)) if isinstance(kinds, list) else ""
    return any(part in named for part in STATES) or "mamba" in str(config.get("model_type"))
