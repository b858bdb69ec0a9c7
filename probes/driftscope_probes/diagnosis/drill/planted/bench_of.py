"""The bench of a planted system: real processes with the plant in them.

In: a system. Out: a Bench, whose recorded step is the one that its two sides make.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.live_engine import LiveEngine
from driftscope_probes.diagnosis.controls.live_trainer import LiveTrainer
from driftscope_probes.diagnosis.controls.sides import Recorded
from driftscope_probes.diagnosis.drill.planted.plant import ENGINE_CHILD, TRAINER_CHILD, planted
from driftscope_probes.diagnosis.drill.planted.systems import PlantedSystem


@contextmanager
def bench_of(system: PlantedSystem, workdir: Path) -> Iterator[Bench]:
    """Its processes have ended when it is left. Raises ProbeError where the step cannot be made."""
    sides = system.sides
    engine = LiveEngine(sides, workdir / "engine", ENGINE_CHILD)
    trainer = LiveTrainer(sides, workdir / "trainer", module=TRAINER_CHILD)
    bench = Bench(sides, engine, trainer, system.known)
    with planted(system.plant):
        try:
            sampled = bench.sample()
            step = Recorded(sampled.sequences, sampled.logprobs, bench.score(sampled.sequences))
            bench.known = replace(system.known, recorded=step)
            yield bench
        finally:
            bench.close()
