"""Restart: the engine's process is started anew, with nothing else changed.

In: a Bench. Out: dirty where another launch computes something else. That the engine repeats itself
inside one launch is asked first.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.engine.comparison import agrees_bitwise
from driftscope_probes.diagnosis.controls.measurement import Measurement
from driftscope_probes.diagnosis.controls.sides import OTHER_LAUNCH, EngineChange


def engine_restart(bench: Bench) -> Measurement:
    return agrees_bitwise(bench, EngineChange(launch=OTHER_LAUNCH), "one launch against another")


ENGINE_RESTART = Control(
    name="engine_restart",
    title="Start the engine again",
    separates="Kernels chosen by timing at each launch from those that every launch takes.",
    null="sigma 0, equal bits (tiny Llama in bf16 and fp32, tiny MoE and SmolLM2 in bf16).",
    cost_s=14.0,
    positive="dirty",
    points_to={"autotune_per_launch": 0.95, "sleep_wake_corruption": 0.3},
    run=engine_restart,
    needs=frozenset({"other_launches"}),
)
