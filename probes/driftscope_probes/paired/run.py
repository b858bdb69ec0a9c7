"""The main job: roll out in every engine dtype, score in every trainer mode, compare each cell.

In: a PairedRequest. Out: the report, and the pairs of every cell as files.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from driftscope_probes.device.environment import environment
from driftscope_probes.diagnosis.floor import Floor
from driftscope_probes.dtypes import Dtype
from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.rollout import Rollout, roll_out
from driftscope_probes.engines.server_logprobs import SENT_NOT_FINITE, Gap, gap_sentences
from driftscope_probes.errors import RequestError
from driftscope_probes.floor.store import FloorFileError, FloorStore
from driftscope_probes.mismatch import Comparison
from driftscope_probes.models.fetch import resolve
from driftscope_probes.models.folder import ModelFolder
from driftscope_probes.paired.cells import (
    Compared,
    compare_all,
    dropout_of,
    errors_of_all,
    side_of,
    weights_of,
)
from driftscope_probes.paired.grid_floors import grid_floors
from driftscope_probes.paired.report import Cell, Gradient, PairedReport, read_grid, semantic_notes
from driftscope_probes.paired.request import PairedRequest
from driftscope_probes.paired.sides import Scores, score
from driftscope_probes.paired.weights import EngineWeights, engine_weights, trainer_weights
from driftscope_probes.paired.which_side import REFERENCE_MODE, WhichSide, which_sides
from driftscope_probes.progress import Progress, ProgressSink, scaled
from driftscope_probes.prompts import PromptBatch, demo_prompts
from driftscope_probes.tokenization import check_context, tokenize
from driftscope_probes.trace_file import write_pair

SCHEMA_VERSION = "1"
#: Fraction of the whole at which each part ends, from the default grid on two cores.
PREPARED, ROLLED_OUT, SCORED = 0.03, 0.45, 0.98


def run_probe(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    """`model_path`, `trainer_model_path`: folders of the models; `floors`: where floors are kept.
    All may be null.
    """
    floors = request.get("floors")
    store = FloorStore(Path(floors)) if floors else None
    report = run_paired(
        PairedRequest(**request["request"]),
        workdir,
        progress,
        model_path=_path(request.get("model_path")),
        trainer_model_path=_path(request.get("trainer_model_path")),
        floors=store,
    )
    return (report if store is None else _with_floors_kept(report, store)).to_dict()


def _path(given: str | None) -> Path | None:
    return Path(given) if given else None


def _with_floors_kept(report: PairedReport, store: FloorStore) -> PairedReport:
    """A folder that cannot be written costs the next verdict its floor, not this report."""
    try:
        store.put(grid_floors(report))
    except FloorFileError as error:
        return report.model_copy(update={"notes": [*report.notes, error.message]})
    return report


def run_paired(
    request: PairedRequest,
    workdir: Path,
    progress: ProgressSink,
    *,
    model_path: Path | None = None,
    trainer_model_path: Path | None = None,
    floors: FloorStore | None = None,
) -> PairedReport:
    """Raises ProbeError with a remedy; `workdir` then holds logs but no report.

    `model_path`, `trainer_model_path`: folders of models whose names the caller has resolved.
    `floors`: measured ones, which the verdicts go by; None: priors.
    """
    started = time.monotonic()
    _check_engine(request)
    name = str(model_path) if model_path else request.model
    model = resolve(name, progress=scaled(progress, 0.0, PREPARED))
    weights = trainer_weights(request, model, trainer_model_path)
    progress(Progress("preparing prompts", PREPARED))
    prompts = _prompts(request, model)
    with engine_weights(request, model, weights.adapter, workdir) as loaded:
        rollouts = _roll_out_all(
            request, loaded, prompts, workdir, scaled(progress, PREPARED, ROLLED_OUT)
        )
        scores = score(
            model_path=weights.model.path,
            model_name=weights.model.name,
            adapter=weights.adapter,
            engine_weights=loaded if request.other_weights else None,
            prompts=prompts,
            rollout_files={dtype: rollout.trace_file for dtype, rollout in rollouts.items()},
            # The reference tells which side carries the error, whether or not it is in the grid.
            modes=list(dict.fromkeys([*request.trainer_dtypes, REFERENCE_MODE])),
            settings=request.trainer,
            workdir=workdir / "trainer",
            progress=scaled(progress, ROLLED_OUT, SCORED),
        )
    progress(Progress("comparing", SCORED))
    analysis_started = time.monotonic()

    def floor_of(engine_dtype: str, mode: str) -> Floor | None:
        if floors is None:
            return None
        return floors.find(request.model, engine_dtype, mode, fingerprint=model.fingerprint)

    cells = compare_all(request, rollouts, scores, weights, floor_of)
    comparisons: dict[tuple[str, str], Comparison] = {
        (cell.engine_dtype, cell.trainer_dtype): cell.comparison for cell in cells
    }
    reading = read_grid(comparisons, resamples=request.resamples)
    # Where the weights differ, no one forward is the reference of both sides.
    errors = {} if request.other_weights else errors_of_all(cells, scores)
    sides = which_sides(errors, resamples=request.resamples)
    grid = tuple(_stored(cell, sides, scores, workdir) for cell in cells)
    now = time.monotonic()
    return PairedReport(
        schema_version=SCHEMA_VERSION,
        kind="paired",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model.facts(request.model),
        request=PairedRequest(**request.model_dump()),  # with every default
        reading=reading,
        grid=grid,
        headroom=scores.headroom,
        gradients=_gradients(request, scores),
        dropout=dropout_of(cells, scores, floor_of, request.resamples),
        weights=weights_of(request, model, weights, cells),
        notes=[*_sent_notes(rollouts), *semantic_notes(request)],
        environment=environment(),
        timing={
            "engine_load_s": sum(rollout.load_s for rollout in rollouts.values()),
            "generate_s": sum(rollout.generate_s for rollout in rollouts.values()),
            "trainer_s": scores.trainer_s,
            "analysis_s": now - analysis_started,
            "total_s": now - started,
        },
    )


def _sent_notes(rollouts: Mapping[Dtype, Rollout]) -> list[str]:
    """What servers sent in place of finite log-probabilities."""
    sent = [
        Gap.from_dict(gap)
        for rollout in rollouts.values()
        for gap in rollout.trace.meta.settings.get(SENT_NOT_FINITE, [])
    ]
    return gap_sentences(sent)


def _check_engine(request: PairedRequest) -> None:
    if request.engine.kind == "vllm-server" and len(request.engine_dtypes) != 1:
        raise RequestError(
            "a running vLLM server has one dtype, but the engine dtypes given are "
            f"{', '.join(request.engine_dtypes)}.",
            remedy="name the server's own dtype alone, for example --engine-dtypes bf16.",
        )


def _prompts(request: PairedRequest, model: ModelFolder) -> PromptBatch:
    given = request.prompts
    prompts = demo_prompts(given) if isinstance(given, int) else given
    batch = tokenize(model.path, prompts, chat_template=request.chat_template)
    check_context(batch, request.sampling.max_tokens, model.max_context)
    return batch


def _roll_out_all(
    request: PairedRequest,
    weights: EngineWeights,
    prompts: PromptBatch,
    workdir: Path,
    progress: ProgressSink,
) -> dict[Dtype, Rollout]:
    rollouts: dict[Dtype, Rollout] = {}
    count = len(request.engine_dtypes)
    for index, dtype in enumerate(request.engine_dtypes):
        task = RolloutTask(
            model_path=weights.path,
            model_name=request.model,
            dtype=dtype,
            prompts=prompts,
            sampling=request.sampling,
            engine=request.engine,
            adapter=weights.lora,
        )
        part = scaled(progress, index / count, (index + 1) / count, f"engine {dtype}: ")
        rollouts[dtype] = roll_out(task, workdir / f"rollout-{dtype}", part)
    return rollouts


def _gradients(request: PairedRequest, scores: Scores) -> tuple[Gradient, ...] | None:
    """Those of the grid; the reference's own has served as what their norms are held against."""
    if scores.gradients is None:
        return None
    return tuple(row for row in scores.gradients if row.trainer_dtype in request.trainer_dtypes)


def _stored(
    cell: Compared,
    sides: Mapping[tuple[str, str], WhichSide],
    scores: Scores,
    workdir: Path,
) -> Cell:
    folder = workdir / "pairs"
    folder.mkdir(exist_ok=True)
    name = f"{cell.engine_dtype}--{cell.trainer_dtype}.safetensors"
    write_pair(cell.rollout, cell.trainer, folder / name, cell.known)
    return Cell(
        engine_dtype=cell.engine_dtype,
        trainer_dtype=cell.trainer_dtype,
        comparison=cell.comparison.to_dict(),
        diagnosis=cell.diagnosis.to_dict(),
        profiles=cell.profiles.to_dict(),
        rollout=cell.rollout.meta.to_dict(),
        trainer=cell.trainer.meta.to_dict(),
        pair_file=f"pairs/{name}",
        which_side=side_of(cell, sides, scores),
    )
