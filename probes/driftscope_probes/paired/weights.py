"""Which weights the trainer has: the engine's, a model of its own, or a base with an adapter.

In: the request and the engine's model. Out: TrainerWeights. Free of torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from driftscope_probes.errors import ModelError, RequestError
from driftscope_probes.models.adapter import Adapter, read_adapter
from driftscope_probes.models.fetch import resolve
from driftscope_probes.models.folder import ModelFolder
from driftscope_probes.paired.request import PairedRequest


@dataclass(frozen=True, slots=True)
class TrainerWeights:
    model: ModelFolder
    adapter: Adapter | None


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
        model = _base(adapter)
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
