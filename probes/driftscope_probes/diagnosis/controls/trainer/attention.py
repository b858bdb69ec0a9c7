"""Control trainer_attention: the trainer's attention written out against the fused one."""

from __future__ import annotations

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement
from driftscope_probes.diagnosis.controls.sides import TrainerChange, gap_of


def _run(bench: Bench) -> Measurement:
    own = bench.sides.trainer.attention
    other = "eager" if own == "sdpa" else "sdpa"
    # Near ties of a router take the other route at the slightest rounding; not so in float32.
    mode = "fp32" if bench.known.mixture_of_experts else None
    as_is = TrainerChange(mode=mode)
    turned = TrainerChange(mode=mode, settings=(("attention", other),))
    sequences = bench.sample().sequences
    gap = gap_of(bench.score(sequences, as_is), bench.score(sequences, turned))
    return bench.agree(gap, f"trainer, attention {other} against {own}")


TRAINER_ATTENTION = Control(
    name="trainer_attention",
    title="Let the trainer compute its attention the other way (sdpa or eager)",
    separates="A fault of the trainer's attention kernel or of its mask from faults elsewhere in "
    "the model.",
    null="The two differ by rounding: sigma up to 0.032 in bf16, 1.9e-6 in fp32, in which mixtures "
    "of experts are compared (40 pairs).",
    cost_s=0.8,
    positive="dirty",
    points_to={
        "attention_backend_diff": 0.6,
        "packed_attention_leak": 0.3,
        "pad_attended": 0.3,
        "trainer_model_bug": 0.05,
        # Two implementations may draw the same numbers.
        "dropout_active": 0.5,
    },
    run=_run,
)
