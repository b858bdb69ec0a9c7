"""Which side errs: from a recorded step run again, or from a control that asked it.

In: a bench, or the steps of a diagnosis. Out: a sentence and, of a recorded step, what to look at;
None where nothing tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from driftscope_probes.diagnose.report import Step
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Outcome
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


@dataclass(frozen=True, slots=True)
class RecordedSides:
    """Which recorded values are not what the same tokens get here."""

    sentence: str
    remedy: str
    outcome: Outcome | None  # of SIDE_CONTROL on the recorded tokens; None: it does not tell


#: Where the engine's and the trainer's recorded values are as here: what that says, what to do
#: and which outcome of SIDE_CONTROL it is.
_APART: Final[Mapping[tuple[bool, bool], tuple[str, str, Outcome | None]]] = {
    (True, False): (
        "the trainer's are",
        "Look at the trainer of that step: compare a checksum of the weights that it used "
        "with this folder's, then its dtype, padding, packing and dropout.",
        "dirty",
    ),
    (False, True): (
        "the engine's are",
        "Look at the engine of that step: what reached its weights at the last sync, and what it "
        "kept (prefix cache, FP8 scales, an adapter). A fresh start on this folder is clean.",
        "clean",
    ),
    (False, False): (
        "both sides are",
        "Give the checkpoint of that step as --model, and the prompts as the engine got them: "
        "these values are of another model or of other tokens.",
        None,
    ),
    (True, True): (
        "neither side's are",
        "Measure the floor of this model (driftscope floor): each side is as close to what the "
        "tokens get here as rounding leaves it.",
        None,
    ),
}


def recorded_sides(bench: Bench) -> RecordedSides | None:
    """Both recorded sides against what the same tokens get here; None without a recorded step.
    Raises ProbeError."""
    recorded = bench.known.recorded
    if recorded is None:
        return None
    reference = bench.score(recorded.sequences, TrainerChange(reference=True))
    engine = gap_of(recorded.rollout, bench.rescore(recorded.sequences)).sigma
    trainer = gap_of(recorded.trainer, reference).sigma
    bound = AT_FLOOR_UP_TO * bench.floor_sigma
    what, remedy, outcome = _APART[engine <= bound, trainer <= bound]
    sentence = (
        f"Of the recorded values {what} not what the same tokens get here: sigma {engine:.2g} "
        f"against this engine, {trainer:.2g} against a float32 forward, floor "
        f"{bench.floor_sigma:.2g}."
    )
    return RecordedSides(sentence, remedy, outcome)
