"""Control tensors_compared: the two folders, tensor by tensor, without running anything."""

from __future__ import annotations

from typing import Final

from driftscope_probes.diagnosis.cause import Evidence
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.models.folder_difference import FolderDifference, folder_difference

#: Of all tensors: a training step moves nearly all of them, a lost transfer one or a few.
FEW: Final = 0.25
#: Named in the evidence.
NAMED: Final = 3


def compared(bench: Bench) -> FolderDifference | None:
    """None where both sides load one folder. Raises ModelError."""
    sides = bench.sides
    if sides.engine_model == sides.trainer_model:
        return None
    return folder_difference(sides.engine_model, sides.trainer_model)


def evidence_of(found: FolderDifference | None) -> tuple[Evidence, ...]:
    if found is None:
        return ()
    return (Evidence("the engine's folder against the trainer's", found.sentence, "equal"),)


def _run(bench: Bench) -> Measurement:
    found = compared(bench)
    if found is None:
        raise NotExercised(
            "both sides load one folder: there is nothing to compare.",
            remedy="name the folder that the engine loads, where it is another one.",
        )
    lost = found.of("lost", "missing")
    alone = found.of("changed", "scaled", "reshaped")
    few = alone if len(found.different) <= FEW * len(found.tensors) else ()
    named = [
        Evidence(tensor.name, tensor.kind, "equal to the trainer's")
        for tensor in (lost or few)[:NAMED]
    ]
    return Measurement(
        "dirty" if lost or few else "clean",
        "tensors that are lost, or differ while the rest is equal",
        float(len(lost or few)),
        "0: all are equal, or a training step moved nearly all",
        (*evidence_of(found), *named),
    )


TENSORS_COMPARED = Control(
    name="tensors_compared",
    title="Compare the weights of the two folders, tensor by tensor",
    separates="A tensor that was lost or left behind from other weights as a whole: stale ones, "
    "another checkpoint, rounded or quantised ones.",
    null="Equal folders: 0 tensors differ. A training step, another checkpoint, rounding and "
    "quantisation each change the 22 or 23 matrices of a tiny Llama, none of them alone.",
    cost_s=0.1,
    positive="dirty",
    points_to={"dropped_tensor_on_reload": 0.95},
    needs=frozenset({"other_weights"}),
    run=_run,
)
