"""Control trainer_weights_in_engine: an engine that is started on what the trainer has."""

from __future__ import annotations

from dataclasses import replace

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement
from driftscope_probes.diagnosis.controls.sides import EngineChange
from driftscope_probes.diagnosis.controls.weights.tensors import compared, evidence_of


def _run(bench: Bench) -> Measurement:
    gap = bench.gap(EngineChange(weights="trainer"))
    measured = bench.fallen(gap, "engine on the trainer's weights")
    return replace(measured, evidence=evidence_of(compared(bench)))


TRAINER_WEIGHTS_IN_ENGINE = Control(
    name="trainer_weights_in_engine",
    title="Start the engine on the trainer's weights",
    separates="Other weights, whatever made them so, from faults of kernels, caches and batches, "
    "which stay.",
    null="A healthy pair is at its floor as before: sigma 0.02 in bf16, 2e-6 in fp32 (tiny Llama).",
    cost_s=4.0,
    positive="clean",
    points_to={
        "stale_engine_weights": 0.97,
        "policy_staleness": 0.95,
        "sub_ulp_update": 0.95,
        "dropped_tensor_on_reload": 0.95,
        "other_checkpoint": 0.97,
        "quantized_weights": 0.97,
        "lora_not_applied": 0.95,
        # In bf16 arithmetic makes more of the difference than the merge does.
        "lora_merge_rounding": 0.7,
        "resume_mismatch": 0.9,
    },
    needs=frozenset({"other_launches", "other_weights"}),
    run=_run,
)
