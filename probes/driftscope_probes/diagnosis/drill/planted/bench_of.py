"""The bench of a planted system, and the step that its two sides push.

In: a system. Out: a Bench of real processes with the plant in them, and what the data of one step
say: the prior of the planner.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from driftscope_probes.diagnosis.cause import Diagnosis
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.live_engine import LiveEngine
from driftscope_probes.diagnosis.controls.live_trainer import LiveTrainer
from driftscope_probes.diagnosis.controls.sides import Recorded
from driftscope_probes.diagnosis.diagnose import diagnose
from driftscope_probes.diagnosis.drill.planted.plant import ENGINE_CHILD, TRAINER_CHILD, planted
from driftscope_probes.diagnosis.drill.planted.systems import PlantedSystem
from driftscope_probes.diagnosis.observed import observed_of
from driftscope_probes.push.pushed_step import PushedStep, pushed_step


@contextmanager
def bench_of(system: PlantedSystem, workdir: Path) -> Iterator[Bench]:
    """Its processes have ended when it is left."""
    sides = system.sides
    engine = LiveEngine(sides, workdir / "engine", ENGINE_CHILD)
    trainer = LiveTrainer(sides, workdir / "trainer", module=TRAINER_CHILD)
    bench = Bench(sides, engine, trainer, system.known)
    with planted(system.plant):
        try:
            yield bench
        finally:
            bench.close()


def recorded(bench: Bench) -> Recorded:
    """The step as the two sides make it. Raises ProbeError."""
    sampled = bench.sample()
    return Recorded(sampled.sequences, sampled.logprobs, bench.score(sampled.sequences))


def step_of(bench: Bench) -> PushedStep:
    """The same as a trainer pushes it: values, tokens and settings, nothing of the fault."""
    own, sides = recorded(bench), bench.sides
    lengths = [len(response) for response in own.sequences.responses]
    tokens = [token for response in own.sequences.responses for token in response]
    tensors = {
        "rollout_logprobs": own.rollout,
        "trainer_logprobs": own.trainer,
        "cu_seqlens": own.sequences.cu_seqlens,
        "mask": np.ones(len(tokens), np.uint8),
        "token_ids": np.array(tokens, np.int32),
        "prompt_lengths": np.array([len(prompt) for prompt in own.sequences.prompts], np.int32),
        "position_ids": np.concatenate(
            [
                np.arange(len(prompt), len(prompt) + length, dtype=np.int32)
                for prompt, length in zip(own.sequences.prompts, lengths, strict=True)
            ]
        ),
    }
    metadata = {
        "model": sides.trainer_model.name,
        "rollout_dtype": sides.engine_dtype,
        "trainer_dtype": sides.trainer_mode,
        "temperature": str(sides.sampling.temperature or 1.0),
        "top_p": "1.0",
        "top_k": "0",
        "logprobs_mode": sides.engine.logprobs_mode,
    }
    return pushed_step(tensors, metadata)


def look(bench: Bench) -> Diagnosis:
    """What the data of the step say by themselves, with the floor of the bench."""
    return diagnose(observed_of(step_of(bench)), bench.known.floor)


def with_recorded(bench: Bench) -> None:
    """The step of this bench is the one whose cause is asked for."""
    bench.known = replace(bench.known, recorded=recorded(bench))
