"""KV cache in the model's own dtype instead of FP8.

In: a Bench. Out: clean where the gap goes with the FP8 cache.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.diagnosis.controls.sides import EngineChange

AUTO = EngineChange(settings=(("kv_cache_dtype", "auto"),))


def kv_cache_auto(bench: Bench) -> Measurement:
    if bench.sides.engine.kv_cache_dtype in (None, "auto"):
        raise NotExercised(
            "the engine keeps keys and values in the model's dtype as it is.",
            remedy="set kv_cache_dtype as the engine in question has it.",
        )
    return bench.fallen(bench.gap(engine=AUTO), "the KV cache in the model's dtype")


KV_CACHE_AUTO = Control(
    name="kv_cache_auto",
    title="Keep keys and values in the model's own dtype",
    separates="An FP8 KV cache from quantised weights and from every fault outside the cache.",
    null="not run without an FP8 cache; with one, sigma 0.122 falls to 0.027 (tiny Llama, bf16).",
    cost_s=12.0,
    positive="clean",
    points_to={"fp8_kv_tile": 0.95, "fp8_kv_scales": 0.95},
    run=kv_cache_auto,
    needs=frozenset({"other_launches"}),
)
