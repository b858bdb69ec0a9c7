"""Eager: without torch.compile and CUDA graphs.

In: a Bench. Out: clean where the gap goes with compiling.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.diagnosis.controls.sides import EngineChange

EAGERLY = EngineChange(settings=(("compile", False),))


def eager(bench: Bench) -> Measurement:
    if not bench.sides.engine.compile:
        raise NotExercised(
            "the engine runs eagerly as it is.",
            remedy="set compile where the engine in question runs compiled.",
        )
    return bench.fallen(bench.gap(engine=EAGERLY), "eager instead of compiled")


EAGER = Control(
    name="eager",
    title="Run the engine eagerly",
    separates="What torch.compile and CUDA graphs change from what the model computes anyway.",
    null="the gap stays: sigma 0.028 compiled, 0.027 eager (tiny Llama, bf16).",
    cost_s=14.0,
    positive="clean",
    points_to={"compile_or_cudagraph_mode": 0.95},
    run=eager,
    needs=frozenset({"other_launches"}),
)
