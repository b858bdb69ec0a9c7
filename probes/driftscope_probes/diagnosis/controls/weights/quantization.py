"""Control unquantised: weights that were never quantised, where the engine's are."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from driftscope_probes.diagnosis.cause import Evidence
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement
from driftscope_probes.diagnosis.controls.sides import EngineChange
from driftscope_probes.diagnosis.controls.weights.exact import ENGINE, fallen_in_float32
from driftscope_probes.diagnosis.controls.weights.tensors import compared, evidence_of
from driftscope_probes.errors import EngineError
from driftscope_probes.models.checks import CONFIG_LIMIT, CONFIG_NAME
from driftscope_probes.models.json_file import read_json

#: Of the tensors that differ: norms and embeddings are mostly left as they are.
MOST: Final = 0.5


def _run(bench: Bench) -> Measurement:
    """The folders first: only where the engine's is quantised is an engine started without.

    Both sides then compute in float32: int8 moves a value no further than bf16 arithmetic does.
    """
    found = compared(bench)
    stated = _stated(bench)
    coarse = () if found is None else found.of("coarser", "packed")
    different = () if found is None else found.different
    evidence = (*evidence_of(found), *stated)
    if not stated and not (coarse and len(coarse) >= MOST * len(different)):
        return Measurement(
            "dirty",
            "tensors of the engine that are a step function of the trainer's",
            float(len(coarse)),
            "most of those that differ, where they are quantised",
            evidence,
        )
    if stated or found is not None and found.of("packed"):
        return _of_a_quantised_format(bench, len(coarse), evidence)
    measured = fallen_in_float32(
        bench,
        "engine on the trainer's weights, which are not quantised",
        engine=replace(ENGINE, weights="trainer"),
    )
    return replace(measured, evidence=(*measured.evidence, *evidence))


def _of_a_quantised_format(
    bench: Bench, packed: int, evidence: tuple[Evidence, ...]
) -> Measurement:
    """The engine runs it in its own dtype, or not at all: vLLM 0.32 on CPU has no fp8 kernels."""
    try:
        _ = bench.base
    except EngineError as error:
        first = error.message.strip().splitlines()[0]
        return Measurement(
            "clean",
            "tensors stored in a quantised format, read from the folder alone",
            float(packed),
            "0",
            (*evidence, Evidence("the engine on this machine", first, "runs the folder")),
        )
    gap = bench.gap(EngineChange(weights="trainer"))
    measured = bench.fallen(gap, "engine on the trainer's weights, which are not quantised")
    return replace(measured, evidence=evidence)


def _stated(bench: Bench) -> tuple[Evidence, ...]:
    file = bench.sides.engine_model / CONFIG_NAME
    stated = read_json(file, CONFIG_LIMIT).get("quantization_config") if file.is_file() else None
    if not isinstance(stated, dict):
        return ()
    method = str(stated.get("quant_method", "of unknown method"))
    return (Evidence("quantization_config of the engine's folder", method, "none"),)


UNQUANTISED = Control(
    name="unquantised",
    title="Read whether the engine's weights are quantised, and run it with ones that are not",
    separates="Quantised weights from other, older or damaged ones; a quantised KV cache stays.",
    null="Weights of another step, and folders that are equal, hold no step function of the "
    "trainer's: 0 tensors; quantised ones (int8, int4 in groups) all 22 matrices that were.",
    cost_s=3.0,
    positive="clean",
    points_to={"quantized_weights": 0.95},
    needs=frozenset({"other_launches", "other_weights"}),
    run=_run,
)
