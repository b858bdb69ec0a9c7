"""Control trainer_repeat: the same sequences twice, from another seed; the bits must be equal."""

from __future__ import annotations

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement
from driftscope_probes.diagnosis.controls.sides import TrainerChange, gap_of


def _run(bench: Bench) -> Measurement:
    sequences = bench.sample().sequences
    # Under one seed a forward that draws would repeat its draws.
    again = TrainerChange(settings=(("seed", bench.sides.trainer.seed + 1),))
    gap = gap_of(bench.score(sequences), bench.score(sequences, again))
    return Measurement(
        "clean" if gap.equal == 1.0 else "dirty",
        "fraction of tokens with other bits when scored again with another seed",
        1.0 - gap.equal,
        "0: equal bits",
    )


TRAINER_REPEAT = Control(
    name="trainer_repeat",
    title="Score the same tokens again in the trainer, with another seed",
    separates="A trainer that draws at random, or whose kernels do not repeat themselves, from one "
    "that is wrong in the same way each time.",
    null="Equal bits (tiny Llama and MoE, bf16 and fp32, 40 pairs).",
    cost_s=0.5,
    positive="dirty",
    points_to={"dropout_active": 0.98},
    run=_run,
)
