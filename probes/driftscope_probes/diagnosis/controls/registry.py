"""All controls. Adding one takes its file and a line here.

In: nothing. Out: CONTROLS, in the order in which a user would try them without a planner.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.engine.attention import KV_SPLIT_OFF
from driftscope_probes.diagnosis.controls.engine.batch import ENGINE_BATCH_OF_ONE
from driftscope_probes.diagnosis.controls.engine.chunking import WHOLE_PREFILL
from driftscope_probes.diagnosis.controls.engine.compiling import EAGER
from driftscope_probes.diagnosis.controls.engine.kv_dtype import KV_CACHE_AUTO
from driftscope_probes.diagnosis.controls.engine.onset import TRUNCATED_PROMPTS
from driftscope_probes.diagnosis.controls.engine.prefix_cache import PREFIX_CACHE_OFF
from driftscope_probes.diagnosis.controls.engine.reload import RELOAD_SAME_WEIGHTS
from driftscope_probes.diagnosis.controls.engine.replica import SECOND_REPLICA
from driftscope_probes.diagnosis.controls.engine.reprefill import DECODE_REPREFILL
from driftscope_probes.diagnosis.controls.engine.restart import ENGINE_RESTART
from driftscope_probes.diagnosis.controls.engine.sleep import SLEEP_WAKE
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
from driftscope_probes.diagnosis.controls.weights.adapter import (
    ADAPTER_MERGED_FP32,
    ADAPTER_OFF,
    ADAPTER_UNMERGED,
)
from driftscope_probes.diagnosis.controls.weights.generation import RECORDED_GENERATION
from driftscope_probes.diagnosis.controls.weights.older import OLDER_WEIGHTS
from driftscope_probes.diagnosis.controls.weights.ops import EXPLAIN_OPS
from driftscope_probes.diagnosis.controls.weights.quantization import UNQUANTISED
from driftscope_probes.diagnosis.controls.weights.rounding import WEIGHTS_ROUNDED
from driftscope_probes.diagnosis.controls.weights.routes import ROUTES_REPLAYED
from driftscope_probes.diagnosis.controls.weights.swap import TRAINER_WEIGHTS_IN_ENGINE
from driftscope_probes.diagnosis.controls.weights.tensors import TENSORS_COMPARED

CONTROLS: tuple[Control, ...] = (
    # The engine: what needs no other engine first.
    ENGINE_BATCH_OF_ONE,
    DECODE_REPREFILL,
    TRUNCATED_PROMPTS,
    RELOAD_SAME_WEIGHTS,
    SLEEP_WAKE,
    PREFIX_CACHE_OFF,
    WHOLE_PREFILL,
    KV_CACHE_AUTO,
    KV_SPLIT_OFF,
    EAGER,
    SECOND_REPLICA,
    ENGINE_RESTART,
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
    # The weights.
    TENSORS_COMPARED,
    EXPLAIN_OPS,
    TRAINER_WEIGHTS_IN_ENGINE,
    OLDER_WEIGHTS,
    WEIGHTS_ROUNDED,
    UNQUANTISED,
    ADAPTER_OFF,
    ADAPTER_UNMERGED,
    ADAPTER_MERGED_FP32,
    RECORDED_GENERATION,
    ROUTES_REPLAYED,
)
BY_NAME: dict[str, Control] = {control.name: control for control in CONTROLS}
