"""Which weights each side has: one model, two models, or a base with an adapter.

In: the request and the engine's model. Out: TrainerWeights, EngineWeights. Free of torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from driftscope_probes.errors import ModelError, RequestError
from driftscope_probes.models.adapter import Adapter, read_adapter
from driftscope_probes.models.fetch import resolve
from driftscope_probes.models.folder import ModelFolder
from driftscope_probes.models.merge import MergeDtype, merge
from driftscope_probes.paired.request import EngineAdapter, PairedRequest


@dataclass(frozen=True, slots=True)
class TrainerWeights:
    model: ModelFolder
    adapter: Adapter | None


@dataclass(frozen=True, slots=True)
class EngineWeights:
    """What the engine loads."""

    path: Path
    lora: Adapter | None  # beside them, through vLLM's own LoRA

    def to_json(self) -> dict[str, Any]:
        """For the trainer's process, which scores the same tokens with them."""
        lora = None if self.lora is None else self.lora.to_json()
        return {"path": str(self.path), "lora": lora}


MERGED: Final[dict[EngineAdapter, MergeDtype]] = {"merged-fp32": "fp32", "merged-bf16": "bf16"}
#: In the folder of a probe, while it runs.
MERGED_FOLDER: Final = "engine-merged"


@contextmanager
def engine_weights(
    request: PairedRequest, model: ModelFolder, adapter: Adapter | None, workdir: Path
) -> Iterator[EngineWeights]:
    """A merged model is removed at the end: it has the size of the model. Raises ModelError."""
    if adapter is None or request.engine_adapter == "off":
        yield EngineWeights(model.path, None)
    elif request.engine_adapter == "unmerged":
        yield EngineWeights(model.path, adapter)
    else:
        target = workdir / MERGED_FOLDER
        shutil.rmtree(target, ignore_errors=True)  # of a run that was killed
        try:
            merge(model.path, adapter, MERGED[request.engine_adapter], target)
            yield EngineWeights(target, None)
        finally:
            shutil.rmtree(target, ignore_errors=True)


def trainer_weights(
    request: PairedRequest, engine: ModelFolder, folder: Path | None = None
) -> TrainerWeights:
    """`folder`: of `request.trainer_model`, where the caller has resolved it. Raises ProbeError."""
    adapter = None if request.adapter is None else read_adapter(request.adapter)
    if folder is not None:
        model = resolve(str(folder))
    elif request.trainer_model is not None:
        model = resolve(request.trainer_model)
    elif adapter is not None:
        # Where the adapter is to get into the engine, the engine's model is its base.
        model = _base(adapter) if request.engine_adapter == "off" else engine
    else:
        return TrainerWeights(engine, None)
    if model.vocab_size != engine.vocab_size:
        raise RequestError(
            f"the engine's model has {engine.vocab_size} tokens, the trainer's {model.name} "
            f"{model.vocab_size}: one token is not the same on both sides.",
            remedy="give two models with one vocabulary and tokenizer.",
        )
    return TrainerWeights(model, adapter)


def _base(adapter: Adapter) -> ModelFolder:
    """The model that the adapter names. Never the engine's by default: that may be base and adapter
    merged, to which the adapter would be added twice."""
    if adapter.base is None:
        raise RequestError(
            f"{adapter.path.name} does not name its base model.",
            remedy="give the base as --trainer-model.",
        )
    try:
        return resolve(adapter.base)
    except ModelError as error:
        raise RequestError(
            f"the base model of {adapter.path.name}, {adapter.base!r}, cannot be used: "
            f"{error.message}",
            remedy="give the base as --trainer-model: a folder, a catalogue name or a Hub id.",
        ) from error
