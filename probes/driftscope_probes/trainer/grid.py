"""Every rollout scored in every mode, with progress weighted by the cost of each."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from transformers.utils import logging as transformers_logging

from driftscope_probes.dtypes import Dtype, TrainerMode, parse_mode
from driftscope_probes.models.adapter import Adapter
from driftscope_probes.progress import Progress, ProgressSink
from driftscope_probes.prompts import PromptBatch, read_prompts
from driftscope_probes.trace import Trace
from driftscope_probes.trace_file import read_trace, write_trace
from driftscope_probes.trainer.forward import KnownScores, OnTokens, score_rollout
from driftscope_probes.trainer.gradient import GradientReport, against_fp32
from driftscope_probes.trainer.headroom import measure_headroom
from driftscope_probes.trainer.load import LoadedModel, load_model
from driftscope_probes.trainer.microbatch import input_tokens
from driftscope_probes.trainer.randomness import Rate, rates_of
from driftscope_probes.trainer.settings import TrainerSettings

#: Time of a forward pass relative to bf16 on a CPU with bf16 instructions (0.4, 0.8 and 2.9 s for
#: 165 tokens of SmolLM2): fp16 products are emulated there. Only the progress bar rests on it.
FORWARD_COST: dict[Dtype, float] = {"bf16": 1.0, "fp32": 2.0, "fp16": 7.0}
#: A backward pass has two matrix products for each of the forward's.
BACKWARD_FACTOR = 3.0


class Workload:
    """Adds up work done and reports it as a fraction of the work planned."""

    def __init__(self, sink: ProgressSink) -> None:
        self._sink = sink
        self._planned = 0.0
        self._done = 0.0

    def plan(self, mode: TrainerMode, tokens: int, *, backward: bool) -> None:
        self._planned += tokens * token_cost(mode, backward=backward)

    def starts(self, stage: str) -> None:
        self._sink(Progress(stage, self._done / self._planned))

    def done(self, stage: str, mode: TrainerMode, tokens: int, *, backward: bool) -> None:
        self._done += tokens * token_cost(mode, backward=backward)
        self.starts(stage)


def token_cost(mode: TrainerMode, *, backward: bool) -> float:
    return FORWARD_COST[mode.compute] * (BACKWARD_FACTOR if backward else 1.0)


#: float32 last (see above); the other two in the order that shows progress early.
WEIGHT_ORDER: tuple[Dtype, ...] = ("bf16", "fp16", "fp32")
HEADROOM_MODE = parse_mode("fp32")


#: Which forward a trace is of. "quiet": the same model without what it draws at random in training
#: mode, where it draws. "engine_weights": the weights that the engine loaded, quiet, in the
#: trainer's arithmetic, where the two sides have different ones.
Forward = Literal["asked", "quiet", "engine_weights"]


#: What a stage of the progress says of a forward beyond the mode.
STAGES: dict[Forward, str] = {
    "asked": "",
    "quiet": " without dropout",
    "engine_weights": " with the engine's weights",
}


@dataclass(frozen=True, slots=True)
class GridRequest:
    model_path: str
    model_name: str
    adapter: Adapter | None
    engine_model_path: str | None  # None: the engine has the trainer's weights
    engine_lora: Adapter | None  # that the engine keeps beside them
    modes: list[str]
    prompts: Path
    rollouts: dict[str, Path]  # by engine dtype
    settings: TrainerSettings


def run_grid(request: GridRequest, workdir: Path, sink: ProgressSink) -> dict[str, Any]:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    grid = _Grid(request, workdir, sink)
    grid.run()
    return grid.result()


class _Grid:
    def __init__(self, request: GridRequest, workdir: Path, sink: ProgressSink) -> None:
        self.request, self.workdir, self.settings = request, workdir, request.settings
        self.modes = [parse_mode(name) for name in request.modes]
        self.prompts: PromptBatch = read_prompts(request.prompts)
        self.rollouts = {dtype: read_trace(path) for dtype, path in request.rollouts.items()}
        self.workload = self._planned(sink)
        self.traces: dict[Forward, dict[str, dict[str, str]]] = {
            forward: {name: {} for name in request.modes} for forward in get_args(Forward)
        }
        self.rates: tuple[Rate, ...] = ()
        self.drew: set[str] = set()  # modes whose forward drew random numbers
        self.gradients: list[GradientReport] = []
        self.headroom: dict[str, Any] | None = None
        self.seconds = dict.fromkeys(("load_s", "forward_s", "backward_s", "headroom_s"), 0.0)

    def run(self) -> None:
        for weights in WEIGHT_ORDER:
            modes = [mode for mode in self.modes if mode.weights == weights]
            headroom = self.settings.headroom and weights == HEADROOM_MODE.weights
            if not modes and not headroom:
                continue
            loaded = self._load(weights)
            for mode in modes:
                self._score(loaded, mode, "asked")
                if self._drew(mode):
                    self._score(loaded, mode, "quiet")
            if headroom:
                loaded.model.train()
                self._measure_headroom(loaded)
            del loaded
            gc.collect()
            if self.request.engine_model_path is not None and modes:
                self._score_engine_weights(self.request.engine_model_path, weights, modes)

    def result(self) -> dict[str, Any]:
        gradients = [item.to_dict() for item in against_fp32(self.gradients)]
        return {
            "traces": self.traces["asked"],
            "quiet": self.traces["quiet"],
            "engine_weights": self.traces["engine_weights"],
            "rates": [rate.to_dict() for rate in self.rates],
            "gradients": gradients if self.settings.backward else None,
            "headroom": self.headroom,
            "timing": self.seconds,
        }

    def _load(self, weights: Dtype) -> LoadedModel:
        self.workload.starts(f"loading the model in {weights}")
        asked = self.request
        with self._timed("load_s"):
            loaded = load_model(
                asked.model_path, asked.model_name, weights, self.settings, asked.adapter
            )
        self.rates = rates_of(loaded.model.config.to_dict())
        if asked.adapter is not None and asked.adapter.dropout > 0:
            self.rates += (Rate(field="lora_dropout", rate=asked.adapter.dropout),)
        return loaded

    def _score_engine_weights(self, path: str, weights: Dtype, modes: list[TrainerMode]) -> None:
        self.workload.starts(f"loading the engine's weights in {weights}")
        with self._timed("load_s"):
            loaded = load_model(
                path, "the engine's model", weights, self.settings, self.request.engine_lora
            )
        for mode in modes:
            self._score(loaded, mode, "engine_weights")
        del loaded
        gc.collect()

    def _drew(self, mode: TrainerMode) -> bool:
        """Whether a forward of this mode drew random numbers."""
        return mode.name in self.drew

    def _score(self, loaded: LoadedModel, mode: TrainerMode, forward: Forward) -> None:
        known = KnownScores()
        # Evaluation mode draws nothing; the model has no other layer that it changes.
        loaded.model.train(forward == "asked")
        settings = self.settings
        if forward != "asked":
            settings = settings.model_copy(update={"backward": False})
        for engine_dtype, rollout in self.rollouts.items():
            with self._timed("forward_s"):
                scored = score_rollout(
                    loaded,
                    mode,
                    self.prompts,
                    rollout,
                    settings,
                    known=known,
                    on_tokens=self._told(mode, forward),
                )
            self.seconds["forward_s"] -= scored.backward_s
            self.seconds["backward_s"] += scored.backward_s
            if scored.trace.meta.settings["random_numbers_drawn"]:
                self.drew.add(mode.name)
            kind = "" if forward == "asked" else f"-{forward}"
            path = self.workdir / f"trace{kind}-{mode.name}--{engine_dtype}.safetensors"
            write_trace(scored.trace, path)
            self.traces[forward][mode.name][engine_dtype] = str(path)
            if scored.gradient is not None:
                self.gradients.append(scored.gradient)

    def _told(self, mode: TrainerMode, forward: Forward) -> OnTokens:
        """Progress counts what was planned: whether a quiet forward is needed shows only later."""
        stage = f"scoring in {mode.name}{STAGES[forward]}"
        if forward == "quiet":
            return lambda _: self.workload.starts(stage)
        backward = self.settings.backward and forward == "asked"
        return lambda tokens: self.workload.done(stage, mode, tokens, backward=backward)

    def _measure_headroom(self, loaded: LoadedModel) -> None:
        with self._timed("headroom_s"):
            measured = measure_headroom(
                loaded,
                self.prompts,
                self._headroom_rollout(),
                self.settings,
                on_tokens=lambda tokens: self.workload.done(
                    "measuring the FP16 headroom", HEADROOM_MODE, tokens, backward=True
                ),
            )
        self.headroom = measured.to_dict()

    def _headroom_rollout(self) -> Trace:
        """FP16's own rollout if there is one: the headroom is about FP16."""
        first = next(iter(self.rollouts.values()))
        return self.rollouts.get("fp16", first)

    def _planned(self, sink: ProgressSink) -> Workload:
        workload = Workload(sink)
        for rollout in self.rollouts.values():
            tokens = input_tokens(self.prompts, rollout)
            for mode in self.modes:
                workload.plan(mode, tokens, backward=self.settings.backward)
                if self.request.engine_model_path is not None:
                    workload.plan(mode, tokens, backward=False)
        if self.settings.headroom:
            rollout = self._headroom_rollout()
            tokens = input_tokens(self.prompts, rollout, self.settings.headroom_sequences)
            workload.plan(HEADROOM_MODE, tokens, backward=True)
        return workload

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - started
