"""Control dropout_off: the trainer without what its forward draws at random."""

from __future__ import annotations

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement
from driftscope_probes.diagnosis.controls.sides import TrainerChange


def _run(bench: Bench) -> Measurement:
    return bench.fallen(bench.gap(trainer=TrainerChange(quiet=True)), "dropout off")


DROPOUT_OFF = Control(
    name="dropout_off",
    title="Score in evaluation mode: dropout and router noise are off",
    separates="Dropout or router noise in the trainer's forward from faults that evaluation mode "
    "does not change.",
    null="A model without dropout has the same bits in both modes: nothing falls (40 pairs).",
    cost_s=0.5,
    positive="clean",
    points_to={"dropout_active": 0.98},
    run=_run,
)
