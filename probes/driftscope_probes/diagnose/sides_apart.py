"""Which side errs: from a recorded step run again, or from a control that asked it.

In: a bench, or the steps of a diagnosis. Out: a sentence, or None where nothing tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from driftscope_probes.diagnose.report import Step
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.sides import TrainerChange, gap_of
from driftscope_probes.diagnosis.floor import AT_FLOOR_UP_TO

#: The control that holds the trainer against a plain forward of the same weights.
SIDE_CONTROL: Final = "reference_forward"
SIDES: Final = {
    "dirty": "The trainer errs: it differs from a plain float32 forward of its own weights.",
    "clean": "The engine's side errs, in its computation or its weights: the trainer agrees with a "
    "plain float32 forward of its own weights.",
}


def side_sentence(steps: Sequence[Step]) -> str | None:
    outcomes = [step.outcome for step in steps if step.control == SIDE_CONTROL]
    return SIDES[outcomes[-1]] if outcomes else None


def recorded_sides(bench: Bench) -> str | None:
    """Both recorded sides against what the same tokens get here; None without a recorded step.
    Raises ProbeError."""
    recorded = bench.known.recorded
    if recorded is None:
        return None
    reference = bench.score(recorded.sequences, TrainerChange(reference=True))
    engine = gap_of(recorded.rollout, bench.rescore(recorded.sequences)).sigma
    trainer = gap_of(recorded.trainer, reference).sigma
    bound = AT_FLOOR_UP_TO * bench.floor_sigma
    found = {(False, False): "both sides are", (True, False): "the trainer's are"}
    found |= {(False, True): "the engine's are", (True, True): "neither side's are"}
    what = found[engine <= bound, trainer <= bound]
    return (
        f"Of the recorded values {what} not what the same tokens get here: sigma {engine:.2g} "
        f"against this engine, {trainer:.2g} against a float32 forward, floor "
        f"{bench.floor_sigma:.2g}."
    )
