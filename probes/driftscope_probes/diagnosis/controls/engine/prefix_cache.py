"""Prefix cache off; and the same prompts with a cold and a hot one.

In: a Bench. Out: clean where the gap goes with the cache.
"""

from __future__ import annotations

from dataclasses import replace

from driftscope_probes.diagnosis.cause import Evidence
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.engine.comparison import decoded_gap
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.diagnosis.controls.sides import EngineChange

OFF = EngineChange(settings=(("prefix_caching", False),))
HOT = EngineChange(warm=True)


def prefix_cache_off(bench: Bench) -> Measurement:
    if bench.sides.engine.prefix_caching is False or bench.sides.engine.kind == "hf":
        raise NotExercised(
            "the engine has no prefix cache as it is.",
            remedy="set prefix_caching as the engine in question has it.",
        )
    found = bench.fallen(bench.gap(engine=OFF), "the prefix cache off")
    return replace(found, evidence=_hot_and_cold(bench))


def _hot_and_cold(bench: Bench) -> tuple[Evidence, ...]:
    """Of an engine whose weights stand still, a hot cache answers as a cold one."""
    hot = bench.sample(HOT)
    gap = decoded_gap(bench.sample(), hot)
    if not hot.cached_tokens or gap is None:
        return ()
    what = f"sigma, a hot cache ({hot.cached_tokens} prompt tokens found in it) against a cold one"
    return (Evidence(what, gap.sigma, "0: equal bits, or the floor"),)


PREFIX_CACHE_OFF = Control(
    name="prefix_cache_off",
    title="Turn the prefix cache off",
    separates="Keys and values of older weights in the cache from older weights in the engine.",
    null="the gap stays: sigma 0.027 with the cache and without (tiny Llama, bf16); hot and cold "
    "have equal bits.",
    cost_s=12.0,
    positive="clean",
    points_to={"stale_prefix_cache": 0.95, "hybrid_version_kv": 0.6},
    run=prefix_cache_off,
    needs=frozenset({"other_launches"}),
)
