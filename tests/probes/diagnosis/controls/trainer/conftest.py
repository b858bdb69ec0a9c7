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
    Known,
    Logprobs,
    Sampled,
    Sequences,
    Sides,
    Tokens,
)
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
        raise NotImplementedError("no control of the trainer asks for it")

    def close(self) -> None:
        self._models.clear()

    def _generated(
        self, prompts: Tokens, sampling: SamplingSettings, change: EngineChange
    ) -> Sampled:
        sides = self._sides
        dtype = change.dtype or sides.engine_dtype
        task = RolloutTask(
            model_path=sides.engine_model,
            model_name="tiny",
            dtype=dtype,
            prompts=PromptBatch.from_lists([list(prompt) for prompt in prompts]),
            sampling=sampling,
            engine=sides.engine,
        )
        if dtype not in self._models:
            self._models[dtype] = HfGenerate(task)
        trace = self._models[dtype].for_task(task).generate(discard)
        responses = [trace.token_ids[trace.sequence(index)] for index in range(trace.sequences)]
        sequences = Sequences(prompts, tuple(tuple(ids.tolist()) for ids in responses))
        return Sampled(sequences, trace.logprobs)


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
    """make_bench(model, dtype, desk=, engine_model=, micro_batch=, …): settings of the trainer."""

    def make(
        model: Path,
        dtype: str = "bf16",
        *,
        desk: TrainerDesk | None = None,
        engine_model: Path | None = None,
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
        return Bench(sides, HfEngine(sides), DeskTrainer(sides, desk or TrainerDesk()), known)

    return make


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
