"""All controls. Adding one takes its file and a line here.

In: nothing. Out: CONTROLS, in the order in which a user would try them without a planner.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.trainer.attention import TRAINER_ATTENTION
from driftscope_probes.diagnosis.controls.trainer.batching import (
    TRAINER_MICROBATCH_ONE,
    TRAINER_PADDING_SIDES,
)
from driftscope_probes.diagnosis.controls.trainer.dropout import DROPOUT_OFF
from driftscope_probes.diagnosis.controls.trainer.dtypes import (
    DTYPES_FP32,
    FP32_HEAD_BOTH,
    FP32_HEAD_TRAINER,
)
from driftscope_probes.diagnosis.controls.trainer.norms import NORM_CAST_ORDER, NORM_EPSILON
from driftscope_probes.diagnosis.controls.trainer.packing import DOCUMENT_PERTURBED
from driftscope_probes.diagnosis.controls.trainer.reference import REFERENCE_FORWARD
from driftscope_probes.diagnosis.controls.trainer.repeat import TRAINER_REPEAT

CONTROLS: tuple[Control, ...] = (
    # The trainer.
    REFERENCE_FORWARD,
    TRAINER_MICROBATCH_ONE,
    TRAINER_PADDING_SIDES,
    DOCUMENT_PERTURBED,
    TRAINER_REPEAT,
    DROPOUT_OFF,
    TRAINER_ATTENTION,
    NORM_EPSILON,
    NORM_CAST_ORDER,
    FP32_HEAD_TRAINER,
    FP32_HEAD_BOTH,
    DTYPES_FP32,
)
BY_NAME: dict[str, Control] = {control.name: control for control in CONTROLS}
