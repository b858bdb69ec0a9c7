"""Control weights_rounded: the trainer's weights in the format in which the engine got them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement
from driftscope_probes.diagnosis.controls.weights.exact import TRAINER, fallen_in_float32
from driftscope_probes.diagnosis.controls.weights.tensors import compared, evidence_of
from driftscope_probes.dtypes import Dtype

#: In which weights are exported where nothing else is known: what trainers save.
EXPORTED: Final[Dtype] = "bf16"


def _run(bench: Bench) -> Measurement:
    """Both sides compute in float32, so that only the weights differ."""
    form: Dtype = "fp16" if bench.sides.engine_dtype == "fp16" else EXPORTED
    rounded = replace(TRAINER, weights_as=form)
    measured = fallen_in_float32(bench, f"trainer's weights rounded to {form}", trainer=rounded)
    return replace(measured, evidence=(*measured.evidence, *evidence_of(compared(bench))))


WEIGHTS_ROUNDED = Control(
    name="weights_rounded",
    title="Round the trainer's weights as the export does, and compare in float32",
    separates="An update below the last bit of the exported format, which the engine never sees, "
    "from weights that are older or damaged.",
    null="A float32 trainer and an engine on the same folder are equal in float32: sigma 2e-6, and "
    "nothing to explain. Rounding to bf16 alone makes 0.006 (tiny Llama).",
    cost_s=1.5,
    positive="clean",
    points_to={"sub_ulp_update": 0.97},
    needs=frozenset({"other_launches", "other_weights"}),
    run=_run,
)
