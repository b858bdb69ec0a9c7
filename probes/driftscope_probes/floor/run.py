"""What rounding alone explains: sample tokens, score them in every way, compare.

In: a FloorRequest. Out: the report; the floors in the folder of floors where one is given.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from safetensors.numpy import load_file

from driftscope_probes.children import ChildProcess
from driftscope_probes.crashes import explain_trainer_crash
from driftscope_probes.device.environment import environment
from driftscope_probes.dtypes import Dtype
from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.rollout import Rollout, roll_out
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings, available_cores
from driftscope_probes.floor.report import (
    FloorReport,
    PairFloor,
    Scores,
    dtype_noise,
    floor_sentence,
    pair_floor,
)
from driftscope_probes.floor.request import FloorRequest
from driftscope_probes.floor.store import SCHEMA_VERSION, FloorStore, machine, stored_floors
from driftscope_probes.models.fetch import resolve
from driftscope_probes.models.folder import ModelFolder
from driftscope_probes.progress import Progress, ProgressSink, scaled
from driftscope_probes.prompts import PromptBatch, demo_prompts, write_prompts
from driftscope_probes.tokenization import check_context, tokenize

#: Fraction of the whole at which each part ends, from SmolLM2 on two cores.
PREPARED, SAMPLED, SCORED = 0.03, 0.2, 0.99
#: The dtype that most engines sample in; whose tokens are scored matters little to how far the
#: scores of two ways lie apart.
SAMPLED_IN: Final[Dtype] = "bf16"


def run_probe(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    """`model_path`: folder of the model; `floors`: where floors are kept. Both may be null."""
    folder, floors = request.get("model_path"), request.get("floors")
    report = run_floor(
        FloorRequest(**request["request"]),
        workdir,
        progress,
        model_path=Path(folder) if folder else None,
    )
    if floors:
        FloorStore(Path(floors)).put(stored_floors(report))
    return report.to_dict()


def run_floor(
    request: FloorRequest,
    workdir: Path,
    progress: ProgressSink,
    *,
    model_path: Path | None = None,
) -> FloorReport:
    """Raises ProbeError with a remedy. `model_path`: of a model whose name is resolved already."""
    started = time.monotonic()
    name = str(model_path) if model_path else request.model
    model = resolve(name, progress=scaled(progress, 0.0, PREPARED))
    progress(Progress("preparing prompts", PREPARED))
    prompts = tokenize(model.path, demo_prompts(request.prompts), chat_template=None)
    check_context(prompts, request.max_tokens, model.max_context)
    rollout = _sample(request, model, prompts, workdir, scaled(progress, PREPARED, SAMPLED))
    found = environment()
    gpu = bool(found["hardware"].get("gpus"))
    files = {"prompts": workdir / "prompts.safetensors", "rollout": rollout.trace_file}
    write_prompts(prompts, files["prompts"])
    measured = _measure(request, model, files, gpu, workdir, scaled(progress, SAMPLED, SCORED))
    scores = Scores(load_file(measured["scores"]), rollout.trace.cu_seqlens)
    pairs = tuple(
        pair_floor(scores, rollout_dtype, trainer_dtype)
        for rollout_dtype in request.dtypes
        for trainer_dtype in request.dtypes
    )
    return FloorReport(
        schema_version=SCHEMA_VERSION,
        kind="floor",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model.facts(request.model),
        request=FloorRequest(**request.model_dump()),  # with every default
        machine=machine(),
        sentence=floor_sentence(Path(request.model).name, pairs),
        pairs=pairs,
        dtypes=tuple(dtype_noise(scores, dtype) for dtype in request.dtypes),
        notes=_notes(request, pairs, gpu=gpu),
        environment=found,
        timing={
            "sample_s": rollout.load_s + rollout.generate_s,
            "score_s": measured["score_s"],
            "total_s": time.monotonic() - started,
        },
    )


def _sample(
    request: FloorRequest,
    model: ModelFolder,
    prompts: PromptBatch,
    workdir: Path,
    progress: ProgressSink,
) -> Rollout:
    task = RolloutTask(
        model_path=model.path,
        model_name=request.model,
        dtype=SAMPLED_IN,
        prompts=prompts,
        sampling=SamplingSettings(max_tokens=request.max_tokens, seed=request.seed),
        engine=EngineSettings(kind="hf", threads=request.threads),
    )
    return roll_out(task, workdir / "rollout", progress)


def _measure(
    request: FloorRequest,
    model: ModelFolder,
    files: Mapping[str, Path],
    gpu: bool,
    workdir: Path,
    progress: ProgressSink,
) -> dict[str, Any]:
    dtypes = {*request.dtypes, "fp32"}
    child = ChildProcess(
        "driftscope_probes.floor.measure",
        {
            "model_path": str(model.path),
            "model_name": request.model,
            **{name: str(path) for name, path in files.items()},
            "dtypes": request.dtypes,
            "sequences": {dtype: request.sequences(dtype, gpu=gpu) for dtype in dtypes},
            "batch_size": request.batch_size,
            "threads": request.threads,
            "seed": request.seed,
        },
        workdir / "scores",
        explain_crash=explain_trainer_crash,
        on_progress=progress,
        environment={
            "OMP_NUM_THREADS": str(request.threads or available_cores()),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        },
    )
    return child.wait()


def _notes(request: FloorRequest, pairs: tuple[PairFloor, ...], *, gpu: bool) -> list[str]:
    notes = []
    fewer = request.sequences("fp16", gpu=gpu)
    if "fp16" in request.dtypes and fewer < request.prompts:
        notes.append(
            f"FP16 was scored on {fewer} of {request.prompts} sequences: this machine emulates its "
            "products, 5 to 10 times slower. Its intervals are wider for that; --fp16-prompts "
            "takes more."
        )
    notes += [
        f"{pair.rollout_dtype} × {pair.trainer_dtype}: {pair.reason}"
        for pair in pairs
        if pair.basis != "same_side"
    ]
    return notes
