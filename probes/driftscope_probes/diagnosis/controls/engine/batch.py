"""Engine batch of one: whether what shares a batch changes a token's log-probability.

In: a Bench. Out: clean where requests sent one by one give what they gave together.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.engine.comparison import engine_gap
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.diagnosis.controls.sides import EngineChange


def batch_of_one(bench: Bench) -> Measurement:
    if len(bench.sides.prompts) == 1 or bench.sides.engine.batch_size == 1:
        raise NotExercised(
            "the engine runs one request at a time as it is.",
            remedy="give more prompts, and leave the engine's batch_size at 2 or more.",
        )
    gap = engine_gap(bench, EngineChange(rows=1))
    return bench.agree(gap, "the engine's batch of one against all prompts together")


ENGINE_BATCH_OF_ONE = Control(
    name="engine_batch_of_one",
    title="Send the requests to the engine one by one",
    separates="An engine whose numbers depend on the batch from everything that does not.",
    null="sigma 0 (tiny Llama, bf16, one thread), 6.3e-7 (fp32, two threads), 0.068 (SmolLM2, "
    "bf16: a single row takes another kernel); twice the floor is 0.14 in bf16.",
    cost_s=1.0,
    positive="dirty",
    points_to={
        "batch_variant_engine": 0.95,
        # Rows of one long shared prefix take the other kernel only where there are several.
        "cascade_attention": 0.8,
        "moe_routing_flip": 0.3,
    },
    run=batch_of_one,
)
