"""Controls dtypes_fp32, fp32_head_both and fp32_head_trainer: what of a gap a dtype makes."""

from __future__ import annotations

from dataclasses import replace

from driftscope_probes.diagnosis.cause import Evidence
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.diagnosis.controls.sides import EngineChange, Gap, TrainerChange
from driftscope_probes.dtypes import HEAD_SUFFIX

ENGINE, TRAINER = EngineChange(dtype="fp32"), TrainerChange(mode="fp32")
ENGINE_HEAD = EngineChange(settings=(("fp32_head", True),))


def _both(bench: Bench) -> Measurement:
    sides = bench.sides
    if sides.engine_dtype == "fp32" and sides.trainer_mode.removesuffix(HEAD_SUFFIX) == "fp32":
        raise NotExercised(
            "both sides run in float32 as they are.",
            remedy="compare them in the dtypes of your engine and trainer.",
        )
    measured = bench.fallen(bench.gap(ENGINE, TRAINER), "both sides in float32")
    return replace(
        measured,
        evidence=(
            _one_side("the trainer alone in float32", bench.gap(trainer=TRAINER), bench),
            _one_side("the engine alone in float32", bench.gap(engine=ENGINE), bench),
        ),
    )


def _head_trainer(bench: Bench) -> Measurement:
    if bench.sides.trainer_mode.endswith(HEAD_SUFFIX):
        raise NotExercised(
            f"the trainer's head is in float32 as it is ({bench.sides.trainer_mode}).",
            remedy=f"look at the engine's head, or at the mode without {HEAD_SUFFIX}.",
        )
    return bench.fallen(bench.gap(trainer=_with_head(bench)), "the trainer's head in float32")


def _head_both(bench: Bench) -> Measurement:
    both = bench.gap(ENGINE_HEAD, _with_head(bench))
    alone = bench.gap(engine=ENGINE_HEAD)
    return replace(
        bench.fallen(both, "both heads in float32"),
        evidence=(_one_side("the engine's head alone in float32", alone, bench),),
    )


def _with_head(bench: Bench) -> TrainerChange:
    return TrainerChange(mode=bench.sides.trainer_mode.removesuffix(HEAD_SUFFIX) + HEAD_SUFFIX)


def _one_side(what: str, gap: Gap, bench: Bench) -> Evidence:
    return Evidence(f"sigma, {what}", float(f"{gap.sigma:.3g}"), f"{bench.base.sigma:.3g} as it is")


DTYPES_FP32 = Control(
    name="dtypes_fp32",
    title="Run both sides in float32, then one alone",
    separates="What rounding makes, in any kernel, from faults that are as large in float32: other "
    "weights, another context, another function.",
    null="Both sides in float32 leave less than a thousandth of bf16's difference (tiny Llama: "
    "1e-6 against 0.02); one side alone leaves most of it.",
    cost_s=12.0,
    positive="clean",
    points_to={
        "bf16_rounding_tail": 0.97,
        "rmsnorm_cast_order": 0.95,
        "moe_routing_flip": 0.9,
        "router_precision": 0.8,
        # A kernel that sums in another order, and one that keeps fewer bits than its dtype has,
        # both go by these names.
        "lm_head_precision": 0.6,
        "batch_variant_engine": 0.5,
        "batch_variant_trainer": 0.5,
        "prefill_vs_decode_kernel": 0.5,
        "cascade_attention": 0.5,
        "attention_backend_diff": 0.5,
        "compile_or_cudagraph_mode": 0.5,
        "fp8_kv_scales": 0.3,
        "fp8_kv_tile": 0.3,
        "sub_ulp_update": 0.3,
    },
    needs=frozenset({"other_launches"}),
    run=_both,
)

FP32_HEAD_TRAINER = Control(
    name="fp32_head_trainer",
    title="Compute the trainer's output layer in float32",
    separates="A difference in the precision of the output layer from rounding elsewhere.",
    null="A healthy bf16 pair keeps its difference, sigma 0.02: a float32 head on one side takes "
    "away none of the engine's rounding.",
    cost_s=0.4,
    positive="clean",
    points_to={"lm_head_precision": 0.85},
    run=_head_trainer,
)

FP32_HEAD_BOTH = Control(
    name="fp32_head_both",
    title="Compute both output layers in float32",
    separates="A difference in the precision of the output layer, whichever side has it, from "
    "rounding elsewhere.",
    null="A healthy bf16 pair keeps its difference: it comes from the layers below.",
    cost_s=12.0,
    positive="clean",
    points_to={"lm_head_precision": 0.95},
    needs=frozenset({"other_launches"}),
    run=_head_both,
)
