"""Control explain_ops: both folders run op by op on equal inputs; is an op at fault?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from driftscope_probes.diagnosis.cause import Evidence
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.explain.pair_process import explain_pair
from driftscope_probes.explain.request import ExplainRequest, ExplainTrainer

#: Of the prompts: an op is seen on each token.
MOST_PROMPTS: Final = 2
MOST_TOKENS: Final = 8


def _run(bench: Bench) -> Measurement:
    sides = bench.sides
    if sides.engine.kind != "vllm" or sides.engine.compile or sides.adapter is not None:
        raise NotExercised(
            "ops are seen in an eager vLLM engine of ours, without an adapter.",
            remedy="run the engine in process and eagerly, on merged weights.",
        )
    request = ExplainRequest(
        model=sides.engine_model.name,
        engine_dtype=sides.engine_dtype,
        trainer_dtype=sides.trainer_mode,
        backward=False,
        sampling=sides.sampling.model_copy(update={"max_tokens": MOST_TOKENS}),
        engine=sides.engine.model_copy(update={"logprobs_mode": "raw_logprobs"}),
        trainer=ExplainTrainer(
            kernels=sides.trainer.kernels,
            attention=sides.trainer.attention,
            threads=sides.trainer.threads,
        ),
    )
    prompts = [list(prompt) for prompt in sides.prompts[:MOST_PROMPTS]]
    with tempfile.TemporaryDirectory(prefix="driftscope-") as folder:
        parts = explain_pair(
            request, sides.engine_model, sides.trainer_model, prompts, Path(folder)
        )
    faulty = [op for op in parts.ops if op.beyond_tolerance]
    evidence = [Evidence(op.label, op.why, "rounding only") for op in faulty]
    return Measurement(
        "dirty" if parts.verdict == "fault" else "clean",
        "ops at fault on equal inputs",
        float(len(faulty)),
        "0: all that differs does by rounding",
        tuple(evidence),
    )


EXPLAIN_OPS = Control(
    name="explain_ops",
    title="Run both folders op by op on equal inputs (driftscope explain)",
    separates="Other weights or another configuration, of whichever kind, from rounding: an op at "
    "fault is named with its layer and reason.",
    null="Healthy pairs of seven tiny families: none of 39 had an op at fault "
    "(docs/explain-drill.md).",
    cost_s=15.0,
    positive="dirty",
    points_to={
        **dict.fromkeys(("other_checkpoint", "stale_engine_weights", "policy_staleness"), 0.97),
        **dict.fromkeys(("dropped_tensor_on_reload", "quantized_weights"), 0.97),
        **dict.fromkeys(("norm_eps", "rope_config", "rope_parameters_dropped"), 0.9),
        "trainer_model_bug": 0.8,
    },
    needs=frozenset({"other_weights"}),
    run=_run,
)
