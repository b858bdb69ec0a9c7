"""Child process that keeps the trainer's models and scores sequences until it is ended.

    python -m driftscope_probes.trainer.run_session WORKDIR

request.json: {}. A Question is answered with {"bits": […]}, float32 log-probabilities. A ProbeError
is answered as such; anything else is a crash, which the parent explains from the log.

`TrainerDesk` is open to subclasses: `load_model` and `score` are what a trainer with another
behaviour replaces, and `serve` runs it. The reference forward goes through neither.
"""

from __future__ import annotations

import gc
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.utils import logging as transformers_logging

from driftscope_probes.children import child_main, serve_questions
from driftscope_probes.dtypes import parse_mode
from driftscope_probes.progress import ProgressSink
from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trace import Trace, TraceMeta
from driftscope_probes.trainer.adapter import DELTA
from driftscope_probes.trainer.changed_norms import changed_norms
from driftscope_probes.trainer.forward import score_rollout
from driftscope_probes.trainer.load import LoadedModel, load_model, torch_dtype
from driftscope_probes.trainer.question import Forward, Question, to_bits
from driftscope_probes.trainer.reference_forward import Reference
from driftscope_probes.trainer.replayed_routes import replayed_routes
from driftscope_probes.trainer.run_trainer import ENVIRONMENT, set_threads
from driftscope_probes.trainer.settings import trainer_temperature

#: The trainer as it is and one other: what a control compares. A model of 1B parameters takes 4 GB
#: in float32.
MODELS_KEPT: Final = 2


class TrainerDesk:
    """Answers questions. A subclass may override `load_model` and `score`."""

    def __init__(self) -> None:
        self._models: OrderedDict[Hashable, Any] = OrderedDict()

    def reply(self, fields: dict[str, Any]) -> Mapping[str, Any]:
        """Raises ProbeError."""
        question = Question.from_dict(fields)
        forward = question.forward
        set_threads(forward.settings.threads)
        rollout = _rollout(question)
        if forward.reference:
            key = ("reference", forward.model, forward.adapter and forward.adapter.path)
            reference: Reference = self._kept(
                key, lambda: Reference(forward.model, forward.adapter)
            )
            temperature = trainer_temperature(rollout.meta)
            values = reference.score(question.prompts, question.responses, temperature)
            return {"bits": to_bits(values)}
        loaded: LoadedModel = self._kept(_key(forward), lambda: self.load_model(forward))
        # Evaluation mode draws nothing; the model has no other layer that it changes.
        loaded.model.train(not forward.quiet)
        prompts = PromptBatch.from_lists([list(prompt) for prompt in question.prompts])
        with changed_norms(loaded.model, epsilon=forward.norm_epsilon, cast=forward.norm_cast):
            if question.routes is not None:
                return {"bits": to_bits(self._routed(loaded, question, question.routes))}
            return {"bits": to_bits(self.score(loaded, forward, prompts, rollout))}

    def load_model(self, forward: Forward) -> LoadedModel:
        """The trainer's own model, in training mode. Raises ProbeError.

        The trial of packing is left out: a leak is to be measured here, not refused.
        """
        loaded = load_model(
            str(forward.model),
            forward.model.name,
            parse_mode(forward.mode).weights,
            forward.settings.model_copy(update={"batching": "padded"}),
            forward.adapter,
        )
        if forward.weights_as is not None:
            _round_weights(loaded.model, torch_dtype(forward.weights_as))
        return loaded

    def score(
        self, loaded: LoadedModel, forward: Forward, prompts: PromptBatch, rollout: Trace
    ) -> NDArray[np.float32]:
        """[tokens] nats, teacher-forced. Raises TrainerError."""
        mode = parse_mode(forward.mode)
        return score_rollout(loaded, mode, prompts, rollout, forward.settings).trace.logprobs

    def _routed(
        self, loaded: LoadedModel, question: Question, routes: tuple[NDArray[np.int16], ...]
    ) -> NDArray[np.float32]:
        """Each sequence by itself, with its own experts forced."""
        found = []
        for index, route in enumerate(routes):
            one = slice(index, index + 1)
            alone = replace(
                question, prompts=question.prompts[one], responses=question.responses[one]
            )
            prompts = PromptBatch.from_lists([list(alone.prompts[0])])
            with replayed_routes(loaded.model, route):
                found.append(self.score(loaded, question.forward, prompts, _rollout(alone)))
        return np.concatenate(found)

    def _kept(self, key: Hashable, load: Callable[[], Any]) -> Any:
        if key not in self._models:
            while len(self._models) >= MODELS_KEPT:
                self._models.popitem(last=False)
            gc.collect()
            self._models[key] = load()
        self._models.move_to_end(key)
        return self._models[key]


def _key(forward: Forward) -> Hashable:
    """Equal keys are scored by one loaded model."""
    return (
        forward.model,
        forward.adapter and forward.adapter.path,
        parse_mode(forward.mode).weights,
        forward.settings.attention,
        forward.weights_as,
    )


def _round_weights(model: Any, dtype: torch.dtype) -> None:
    """To `dtype` and back: an engine that holds its weights in it computes with these.

    Not the adapter's, which stay in float32 on every side.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if DELTA not in name:
                parameter.copy_(parameter.to(dtype))


def _rollout(question: Question) -> Trace:
    """The responses as a rollout whose values nobody reads."""
    lengths = [len(response) for response in question.responses]
    tokens = [token for response in question.responses for token in response]
    return Trace(
        token_ids=np.array(tokens, np.int32),
        logprobs=np.zeros(len(tokens), np.float32),
        cu_seqlens=np.cumsum([0, *lengths], dtype=np.int64),
        mask=np.ones(len(tokens), np.bool_),
        meta=TraceMeta("rollout", "", "", "", "", question.rollout),
    )


def serve(desk: TrainerDesk, progress: ProgressSink) -> dict[str, Any]:
    """The `run` of a child whose trainer is `desk`."""
    os.environ.update(ENVIRONMENT)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    serve_questions(desk.reply, progress)
    return {}


def run(request: dict[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    return serve(TrainerDesk(), progress)


if __name__ == "__main__":
    child_main(run)
