"""Controls adapter_off, adapter_unmerged, adapter_merged_fp32: how the engine gets the adapter.

The two that change the engine run both sides in float32: merged for a bf16 engine, an adapter is
rounded to the same weights whichever way it was summed.
"""

from __future__ import annotations

from dataclasses import replace

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement
from driftscope_probes.diagnosis.controls.sides import EngineAdapter, TrainerChange
from driftscope_probes.diagnosis.controls.weights.exact import ENGINE, fallen_in_float32


def _off(bench: Bench) -> Measurement:
    gap = bench.gap(trainer=TrainerChange(adapter=False))
    return bench.fallen(gap, "trainer without the adapter")


def _in_the_engine(bench: Bench, how: EngineAdapter, what: str) -> Measurement:
    engine = replace(ENGINE, weights="trainer", adapter=how)
    return fallen_in_float32(bench, what, engine=engine)


def _unmerged(bench: Bench) -> Measurement:
    return _in_the_engine(bench, "unmerged", "the adapter kept apart by vLLM's LoRA")


def _merged(bench: Bench) -> Measurement:
    return _in_the_engine(bench, "merged-fp32", "the adapter merged and kept in float32")


ADAPTER_OFF = Control(
    name="adapter_off",
    title="Score the engine's tokens without the adapter",
    separates="An engine that answers from the base model from one that has the adapter, rounded "
    "or not.",
    null="Where the engine has the adapter, a trainer without it is far away: sigma 0.15 against "
    "0.03 in bf16 (tiny Llama, an adapter of a tenth of the weights).",
    cost_s=0.6,
    positive="clean",
    points_to={"lora_not_applied": 0.97},
    needs=frozenset({"adapter"}),
    run=_off,
)

#: With the adapter brought in anew, every fault of the engine's own weights is gone.
_OWN_WEIGHTS = {
    "lora_merge_rounding": 0.97,
    "lora_not_applied": 0.97,
    "stale_engine_weights": 0.95,
    "dropped_tensor_on_reload": 0.95,
    "other_checkpoint": 0.95,
    "quantized_weights": 0.95,
}

ADAPTER_UNMERGED = Control(
    name="adapter_unmerged",
    title="Serve the adapter beside the weights, by vLLM's own LoRA, both sides in float32",
    separates="What a merge rounds away, and an adapter that never arrived, from faults that are "
    "there with the adapter kept apart.",
    null="An engine that keeps the adapter apart equals the trainer in float32: sigma 2e-6.",
    cost_s=5.0,
    positive="clean",
    points_to=_OWN_WEIGHTS,
    needs=frozenset({"adapter", "other_launches"}),
    run=_unmerged,
)

ADAPTER_MERGED_FP32 = Control(
    name="adapter_merged_fp32",
    title="Merge the adapter in float32 and keep it there, both sides in float32",
    separates="What a merge in bf16 rounds away from faults of vLLM's own LoRA and of everything "
    "but the weights.",
    null="Merged and kept in float32, the engine equals the trainer: sigma 2e-6.",
    cost_s=3.0,
    positive="clean",
    points_to=_OWN_WEIGHTS,
    needs=frozenset({"adapter", "other_launches"}),
    run=_merged,
)
