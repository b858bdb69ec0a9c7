"""KV split off: one sequence's keys are not divided among threads (vLLM on CPU).

In: a Bench. Out: clean where the gap goes with the split.

A CPU has no second attention backend; on a GPU the engine's own choice is not changed from here.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.diagnosis.controls.sides import EngineChange

UNSPLIT = EngineChange(settings=(("attention_split_kv", False),))
#: From about a hundred keys on vLLM's CPU attention divides a sequence: shorter ones say nothing.
LEAST_KEYS = 128


def kv_split_off(bench: Bench) -> Measurement:
    sides = bench.sides
    if sides.engine.attention_split_kv is False or sides.engine.kind != "vllm":
        raise NotExercised(
            "the engine splits no keys as it is.",
            remedy="leave attention_split_kv at vLLM's own default, which splits.",
        )
    longest = max(map(len, sides.prompts)) + sides.sampling.max_tokens
    if longest < LEAST_KEYS:
        raise NotExercised(
            f"the longest sequence has {longest} tokens; keys are split from {LEAST_KEYS} on.",
            remedy="give longer prompts, or raise max_tokens.",
        )
    return bench.fallen(bench.gap(engine=UNSPLIT), "keys not split among threads")


KV_SPLIT_OFF = Control(
    name="kv_split_off",
    title="Do not split the keys among threads",
    separates="Attention that depends on the number of threads from all other arithmetic.",
    null="the gap stays: sigma 1.9e-6 with the split and without (tiny Llama, fp32, two threads).",
    cost_s=14.0,
    positive="clean",
    points_to={"attention_backend_diff": 0.5},
    run=kv_split_off,
    needs=frozenset({"other_launches", "threads"}),
)
