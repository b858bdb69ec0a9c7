"""Control reference_forward: which side errs, told by a third forward of the trainer's weights."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import Final

from driftscope_probes.diagnosis.cause import Evidence
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement
from driftscope_probes.diagnosis.controls.sides import AS_IS_TRAINER, TrainerChange, gap_of

#: A trainer errs where it is further from the reference than the engine is by more than the
#: engine's own distance: independent errors add as squares.
FURTHER: Final = sqrt(2.0)


def _run(bench: Bench) -> Measurement:
    sampled = bench.sample()
    reference = bench.score(sampled.sequences, TrainerChange(reference=True))
    # In bf16 a mixture takes another route here and there, and one such token outweighs all others.
    moe = bench.known.mixture_of_experts
    as_is = TrainerChange(mode="fp32") if moe else AS_IS_TRAINER
    trainer = gap_of(reference, bench.score(sampled.sequences, as_is))
    engine = gap_of(reference, sampled.logprobs)
    measured = bench.agree(trainer, "trainer against a float32 reference of its weights")
    if not moe and trainer.sigma <= FURTHER * engine.sigma:
        measured = replace(measured, outcome="clean")
    beside = Evidence(
        "sigma, engine against the same reference",
        float(f"{engine.sigma:.3g}"),
        "large where the trainer's is small: the engine's side or its weights",
    )
    return replace(measured, evidence=(beside,))


REFERENCE_FORWARD = Control(
    name="reference_forward",
    title="Score the responses with a plain float32 forward, one sequence at a time",
    separates="Faults of the trainer (its batches, packing, dropout, model code) from those of the "
    "engine and of its weights: the side that errs is the one away from the reference.",
    null="Both sides are as far from the reference as rounding takes them: sigma up to 0.025 in "
    "bf16, 1.9e-6 in fp32; a mixture's trainer is compared in float32, up to 1.6e-6.",
    cost_s=0.6,
    positive="dirty",
    points_to={
        "dropout_active": 0.97,
        "trainer_model_bug": 0.97,
        "batch_variant_trainer": 0.95,
        "packed_attention_leak": 0.97,
        "packed_state_leak": 0.97,
        "pad_attended": 0.9,
        # Either side may be the one.
        "attention_backend_diff": 0.6,
        "norm_eps": 0.5,
        "rmsnorm_cast_order": 0.4,
        "lm_head_precision": 0.5,
        "rope_config": 0.4,
        "rope_parameters_dropped": 0.4,
        # A trainer in bf16 is the larger part of what rounding makes, where the engine is in fp32.
        "bf16_rounding_tail": 0.1,
        "moe_routing_flip": 0.2,
        "router_precision": 0.3,
    },
    run=_run,
)
