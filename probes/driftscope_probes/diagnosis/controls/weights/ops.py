"""Control explain_ops: both folders run op by op on equal inputs; is an op at fault?"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from driftscope_kernels.compare_ops.reasons import ROUNDING
from driftscope_probes.diagnosis.cause import Evidence
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.diagnosis.controls.sides import Sides
from driftscope_probes.pair_process import explain_pair

OF_THE_TRAINER: Final = ("kernels", "attention", "threads")
#: Of the prompts: an op is seen on each token.
MOST_PROMPTS: Final = 2
MOST_TOKENS: Final = 8


def _explained(sides: Sides) -> Mapping[str, Any]:
    """Parts of explain's report, as JSON. Raises ProbeError."""
    request = {
        "model": sides.engine_model.name,
        "engine_dtype": sides.engine_dtype,
        "trainer_dtype": sides.trainer_mode,
        "backward": False,
        "sampling": {**sides.sampling.model_dump(), "max_tokens": MOST_TOKENS},
        "engine": {**sides.engine.model_dump(), "logprobs_mode": "raw_logprobs"},
        "trainer": {name: getattr(sides.trainer, name) for name in OF_THE_TRAINER},
    }
    with tempfile.TemporaryDirectory(prefix="driftscope-") as folder:
        return explain_pair(
            request,
            sides.engine,
            sides.engine_model,
            sides.trainer_model,
            sides.prompts[:MOST_PROMPTS],
            Path(folder),
        )


def _run(bench: Bench) -> Measurement:
    sides = bench.sides
    if sides.engine.kind != "vllm" or sides.engine.compile or sides.adapter is not None:
        raise NotExercised(
            "ops are seen in an eager vLLM engine of ours, without an adapter.",
            remedy="run the engine in process and eagerly, on merged weights.",
        )
    found = _explained(sides)
    if found["verdict"] in ("not_comparable", "unexplained"):
        raise NotExercised(
            "the ops of the two folders could not be told apart: "
            + (" ".join(found["notes"]) or "one differs in no way that is named."),
            remedy="run driftscope explain on them for the whole report.",
        )
    faulty = [op for op in found["ops"] if op["beyond_tolerance"] or op["reason"] not in ROUNDING]
    evidence = [Evidence(op["label"], op["why"], "rounding only") for op in faulty]
    return Measurement(
        "dirty" if found["verdict"] == "fault" else "clean",
        "ops at fault on equal inputs",
        float(len(faulty)),
        "0: all that differs does by rounding",
        tuple(evidence),
    )


EXPLAIN_OPS = Control(
    name="explain_ops",
    title="Run both folders op by op on equal inputs (driftscope explain)",
    separates="Other weights or another configuration, of whichever kind, from rounding: the kind "
    "of op at fault is named with its reason.",
    null="Healthy pairs of seven tiny families: none of 39 had an op at fault "
    "(docs/explain-drill.md).",
    cost_s=15.0,
    positive="dirty",
    points_to={
        **dict.fromkeys(("other_checkpoint", "stale_engine_weights", "policy_staleness"), 0.97),
        **dict.fromkeys(("dropped_tensor_on_reload", "quantized_weights"), 0.97),
        # Masters that the engine holds rounded are other weights as well.
        "sub_ulp_update": 0.97,
        **dict.fromkeys(("resume_mismatch", "fp8_kv_scales"), 0.8),
        "lora_merge_rounding": 0.7,
        **dict.fromkeys(("norm_eps", "rope_config", "rope_parameters_dropped"), 0.9),
        "trainer_model_bug": 0.8,
    },
    needs=frozenset({"other_weights"}),
    run=_run,
)
