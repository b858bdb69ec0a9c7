"""Benches whose two sides run in this process: transformers' generation, the product's trainer.

The trainer's session is the real one, asked without its process (which test_live_trainer.py has),
so that a fault can be planted in its desk and a bench costs no start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.live_trainer import LiveTrainer
from driftscope_probes.diagnosis.controls.sides import (
    EngineChange,
    EngineSide,
    Known,
    Logprobs,
    Sampled,
    Sequences,
    Sides,
    Tokens,
)
from driftscope_probes.diagnosis.drill.planted.plant import Plant
from driftscope_probes.diagnosis.drill.planted.trainer_child import PlantedDesk
from driftscope_probes.diagnosis.floor import prior_floor
from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.hf_generate import HfGenerate
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.progress import discard
from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trainer.run_session import TrainerDesk
from driftscope_probes.trainer.settings import TrainerSettings

#: Ragged, so that something is padded.
PROMPT_LENGTHS = (9, 17, 30, 5)
RESPONSE_TOKENS = 24

MakeBench = Callable[..., Bench]
Planted = Callable[..., TrainerDesk]


class HfEngine:
    """transformers' generation with a cache, model by model as a change asks for it."""

    def __init__(self, sides: Sides) -> None:
        self._sides = sides
        self._models: dict[str, HfGenerate] = {}

    def sample(self, change: EngineChange) -> Sampled:
        return self._generated(self._sides.prompts, self._sides.sampling, change)

    def respond(self, prompts: Tokens, max_tokens: int, change: EngineChange) -> Sampled:
        greedy = SamplingSettings(max_tokens=max_tokens, temperature=0.0)
        return self._generated(prompts, greedy, change)

    def rescore(self, sequences: Sequences, change: EngineChange) -> Logprobs:
        engine = self._engine(self._task(sequences.prompts, self._sides.sampling, change))
        scored = []
        for prompt, response in zip(sequences.prompts, sequences.responses, strict=True):
            logits = engine.logits([*prompt, *response])[len(prompt) - 1 : -1].float()
            logprobs = torch.log_softmax(logits, -1)
            scored.append(logprobs[range(len(response)), list(response)].numpy())
        return np.concatenate(scored)

    def close(self) -> None:
        self._models.clear()

    def _generated(
        self, prompts: Tokens, sampling: SamplingSettings, change: EngineChange
    ) -> Sampled:
        task = self._task(prompts, sampling, change)
        trace = self._engine(task).for_task(task).generate(discard)
        responses = [trace.token_ids[trace.sequence(index)] for index in range(trace.sequences)]
        sequences = Sequences(prompts, tuple(tuple(ids.tolist()) for ids in responses))
        return Sampled(sequences, trace.logprobs)

    def _task(
        self, prompts: Tokens, sampling: SamplingSettings, change: EngineChange
    ) -> RolloutTask:
        return RolloutTask(
            model_path=self._sides.engine_model,
            model_name="tiny",
            dtype=change.dtype or self._sides.engine_dtype,
            prompts=PromptBatch.from_lists([list(prompt) for prompt in prompts]),
            sampling=sampling,
            engine=self._sides.engine,
        )

    def _engine(self, task: RolloutTask) -> HfGenerate:
        if task.dtype not in self._models:
            self._models[task.dtype] = HfGenerate(task)
        return self._models[task.dtype]


class DeskAsked:
    """A session of this process; questions and answers are JSON, as over the pipe."""

    alive = True

    def __init__(self, desk: TrainerDesk) -> None:
        self._desk = desk

    def ask(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = self._desk.reply(json.loads(json.dumps(dict(question))))
        told: Mapping[str, Any] = json.loads(json.dumps(dict(answer), allow_nan=False))
        return told

    def close(self) -> None: ...


class DeskTrainer(LiveTrainer):
    def __init__(self, sides: Sides, desk: TrainerDesk) -> None:
        super().__init__(sides, Path("unused"))
        self._desk = desk

    def start(self) -> DeskAsked:
        return DeskAsked(self._desk)


def tiny_prompts(vocabulary: int = 900) -> Tokens:
    random = np.random.default_rng(0)
    return tuple(
        tuple(random.integers(3, vocabulary, size=length).tolist()) for length in PROMPT_LENGTHS
    )


@pytest.fixture
def make_bench() -> MakeBench:
    """make_bench(model, dtype, desk=, micro_batch=, …): what is not named is the trainer's setting.

    engine: makes the engine side of the sides and the trainer; HfEngine unless given.
    """

    def make(
        model: Path,
        dtype: str = "bf16",
        *,
        desk: TrainerDesk | None = None,
        engine_model: Path | None = None,
        engine: Callable[[Sides, LiveTrainer], EngineSide] = lambda sides, _: HfEngine(sides),
        moe: bool = False,
        **settings: Any,
    ) -> Bench:
        sides = Sides(
            engine_model=engine_model or model,
            trainer_model=model,
            engine=EngineSettings(kind="hf"),
            trainer=TrainerSettings(threads=1, **settings),
            engine_dtype="bf16" if dtype == "bf16" else "fp32",
            trainer_mode=dtype,
            sampling=SamplingSettings(max_tokens=RESPONSE_TOKENS),
            prompts=tiny_prompts(),
        )
        known = Known(prior_floor(dtype, dtype, moe=moe), mixture_of_experts=moe)
        trainer = DeskTrainer(sides, desk or TrainerDesk())
        return Bench(sides, engine(sides, trainer), trainer, known)

    return make


@pytest.fixture
def planted() -> Planted:
    """planted(fault, size): the desk of a trainer with a fault of drill/planted."""

    def plant(fault: str, size: float = 0.0) -> TrainerDesk:
        return PlantedDesk(Plant("trainer", fault, size))

    return plant


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., Path]:
    """edited(model, name=value, …): a folder with the same weights and another config."""

    def edit(model: Path, **fields: Any) -> Path:
        folder = tmp_path / "edited"
        folder.mkdir()
        for file in model.iterdir():
            if file.name != "config.json":
                (folder / file.name).symlink_to(file)
        config = json.loads((model / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | fields))
        return folder

    return edit
