"""The main job: roll out in every engine dtype, score in every trainer mode, compare each cell.

In: a PairedRequest. Out: the report, and the pairs of every cell as files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from driftscope_probes.device.environment import environment
from driftscope_probes.diagnosis.cause import Diagnosis
from driftscope_probes.diagnosis.diagnose import diagnose
from driftscope_probes.diagnosis.floor import Floor
from driftscope_probes.diagnosis.observed import Observed
from driftscope_probes.dtypes import Dtype
from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.rollout import Rollout, roll_out
from driftscope_probes.engines.server_logprobs import SENT_NOT_FINITE, Gap, gap_sentences
from driftscope_probes.errors import RequestError
from driftscope_probes.floor.store import FloorFileError, FloorStore
from driftscope_probes.mismatch import Comparison, Profiles, compare_tokens, profiles_of
from driftscope_probes.models.fetch import resolve
from driftscope_probes.models.folder import ModelFolder
from driftscope_probes.paired.grid_floors import grid_floors
from driftscope_probes.paired.parts import (
    Dropout,
    Forwards,
    QuietCell,
    Weights,
    cell_parts,
    dropout_sentence,
    weights_sentence,
)
from driftscope_probes.paired.report import Cell, Gradient, PairedReport, read_grid, semantic_notes
from driftscope_probes.paired.request import PairedRequest
from driftscope_probes.paired.sides import Scores, score
from driftscope_probes.paired.weights import TrainerWeights, trainer_weights
from driftscope_probes.paired.which_side import (
    REFERENCE_MODE,
    Errors,
    WhichSide,
    errors_of,
    which_sides,
)
from driftscope_probes.progress import Progress, ProgressSink, scaled
from driftscope_probes.prompts import PromptBatch, demo_prompts
from driftscope_probes.tokenization import check_context, tokenize
from driftscope_probes.trace import Trace, both_sides
from driftscope_probes.trace_file import pair_metadata, write_pair

SCHEMA_VERSION = "1"
#: Fraction of the whole at which each part ends, from the default grid on two cores.
PREPARED, ROLLED_OUT, SCORED = 0.03, 0.45, 0.98


@dataclass(frozen=True, slots=True)
class Compared:
    """One engine dtype against one trainer mode."""

    engine_dtype: Dtype
    trainer_dtype: str
    rollout: Trace
    trainer: Trace
    comparison: Comparison
    profiles: Profiles
    diagnosis: Diagnosis


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
    rollouts = _roll_out_all(
        request, model, prompts, workdir, scaled(progress, PREPARED, ROLLED_OUT)
    )
    scores = score(
        model_path=weights.model.path,
        model_name=weights.model.name,
        adapter=weights.adapter,
        engine_model_path=model.path if request.other_weights else None,
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

    cells = _compare_all(request, rollouts, scores, _known_of(weights, scores), floor_of)
    comparisons: dict[tuple[str, str], Comparison] = {
        (cell.engine_dtype, cell.trainer_dtype): cell.comparison for cell in cells
    }
    reading = read_grid(comparisons, resamples=request.resamples)
    # Where the weights differ, no one forward is the reference of both sides.
    errors = {} if request.other_weights else _errors(cells, scores)
    sides = which_sides(errors, resamples=request.resamples)
    grid = tuple(_stored(cell, sides, scores, workdir) for cell in cells)
    now = time.monotonic()
    return PairedReport(
        schema_version=SCHEMA_VERSION,
        kind="paired",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=_model_json(request.model, model),
        request=PairedRequest(**request.model_dump()),  # with every default
        reading=reading,
        grid=grid,
        headroom=scores.headroom,
        gradients=_gradients(request, scores),
        dropout=_dropout(cells, scores, floor_of, request.resamples),
        weights=_weights(request, model, weights, cells, scores),
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
    model: ModelFolder,
    prompts: PromptBatch,
    workdir: Path,
    progress: ProgressSink,
) -> dict[Dtype, Rollout]:
    rollouts: dict[Dtype, Rollout] = {}
    count = len(request.engine_dtypes)
    for index, dtype in enumerate(request.engine_dtypes):
        task = RolloutTask(
            model_path=model.path,
            model_name=request.model,
            dtype=dtype,
            prompts=prompts,
            sampling=request.sampling,
            engine=request.engine,
        )
        part = scaled(progress, index / count, (index + 1) / count, f"engine {dtype}: ")
        rollouts[dtype] = roll_out(task, workdir / f"rollout-{dtype}", part)
    return rollouts


def _known_of(weights: TrainerWeights, scores: Scores) -> dict[str, str]:
    """Metadata that the diagnosis reads, named as in the push format."""
    known = {}
    if weights.adapter is not None:
        known["adapter"] = weights.adapter.path.name
    if scores.quiet:
        known["trainer_dropout"] = ", ".join(rate.words for rate in scores.rates) or "drawn"
    return known


def _compare_all(
    request: PairedRequest,
    rollouts: Mapping[Dtype, Rollout],
    scores: Scores,
    known: Mapping[str, str],
    floor_of: Callable[[str, str], Floor | None],
) -> list[Compared]:
    cells = []
    for dtype, rollout in rollouts.items():
        for mode in request.trainer_dtypes:
            trainer = scores.traces[dtype, mode]
            tokens = both_sides(rollout.trace, trainer)
            comparison, _ = compare_tokens(tokens, resamples=request.resamples)
            metadata = pair_metadata(rollout.trace, trainer) | known
            cells.append(
                Compared(
                    engine_dtype=dtype,
                    trainer_dtype=mode,
                    rollout=rollout.trace,
                    trainer=trainer,
                    comparison=comparison,
                    profiles=profiles_of(tokens),
                    diagnosis=diagnose(Observed(tokens, metadata), floor_of(dtype, mode)),
                )
            )
    return cells


def _model_json(name: str, model: ModelFolder) -> dict[str, Any]:
    """The folder's path matters only on this machine; the fingerprint identifies the model."""
    facts = model.to_dict()
    del facts["path"]
    return facts | {"name": name}


def _errors(cells: Sequence[Compared], scores: Scores) -> dict[tuple[str, str], Errors]:
    """Against an FP32 forward that draws nothing: a draw is an error of the trainer's."""
    exact = {**scores.traces, **scores.quiet}
    return {
        (cell.engine_dtype, cell.trainer_dtype): errors_of(
            cell.rollout, cell.trainer, exact[cell.engine_dtype, REFERENCE_MODE]
        )
        for cell in cells
    }


def _dropout(
    cells: Sequence[Compared],
    scores: Scores,
    floor_of: Callable[[str, str], Floor | None],
    resamples: int,
) -> Dropout | None:
    """Every cell once more without what the trainer draws at random; None where it draws nothing."""
    quiet = []
    for cell in cells:
        key = (cell.engine_dtype, cell.trainer_dtype)
        if key in scores.quiet:
            trainer = scores.quiet[key]
            tokens = both_sides(cell.rollout, trainer)
            comparison, _ = compare_tokens(tokens, resamples=resamples)
            metadata = pair_metadata(cell.rollout, trainer)
            quiet.append(
                QuietCell(
                    engine_dtype=cell.engine_dtype,
                    trainer_dtype=cell.trainer_dtype,
                    abs_diff_mean=cell.comparison.to_dict()["abs_diff_mean"],
                    comparison=comparison.to_dict(),
                    diagnosis=diagnose(Observed(tokens, metadata), floor_of(*key)).to_dict(),
                )
            )
    if not quiet:
        return None
    sentence = dropout_sentence(scores.rates, quiet)
    return Dropout(rates=scores.rates, sentence=sentence, cells=tuple(quiet))


def _weights(
    request: PairedRequest,
    engine: ModelFolder,
    trainer: TrainerWeights,
    cells: Sequence[Compared],
    scores: Scores,
) -> Weights | None:
    """Every cell split into weights and kernels; None where both sides have the same weights."""
    if not request.other_weights:
        return None
    parts = []
    for cell in cells:
        key = (cell.engine_dtype, cell.trainer_dtype)
        forwards = Forwards(
            cell.rollout, cell.trainer, scores.quiet.get(key), scores.engine_weights[key]
        )
        parts.append(cell_parts(*key, forwards))
    adapter = trainer.adapter
    return Weights(
        engine=_model_json(request.model, engine),
        trainer=_model_json(trainer.model.name, trainer.model),
        adapter=None if adapter is None else adapter.to_dict(),
        sentence=weights_sentence(
            request.model,
            trainer.model.name,
            None if adapter is None else adapter.path.name,
            parts,
        ),
        cells=tuple(parts),
    )


def _gradients(request: PairedRequest, scores: Scores) -> tuple[Gradient, ...] | None:
    """Those of the grid; the reference's own has served as what their norms are held against."""
    if scores.gradients is None:
        return None
    return tuple(row for row in scores.gradients if row.trainer_dtype in request.trainer_dtypes)


def _side(
    cell: Compared, sides: Mapping[tuple[str, str], WhichSide], scores: Scores
) -> WhichSide | None:
    """None where the weights differ, and for two sides in FP32 of which one draws at random: what
    they differ by is not a matter of precision.
    """
    key = (cell.engine_dtype, cell.trainer_dtype)
    side = sides.get(key)
    drawn = side is not None and side.carries == "unknown" and key in scores.quiet
    return None if drawn else side


def _stored(
    cell: Compared,
    sides: Mapping[tuple[str, str], WhichSide],
    scores: Scores,
    workdir: Path,
) -> Cell:
    folder = workdir / "pairs"
    folder.mkdir(exist_ok=True)
    name = f"{cell.engine_dtype}--{cell.trainer_dtype}.safetensors"
    write_pair(cell.rollout, cell.trainer, folder / name)
    return Cell(
        engine_dtype=cell.engine_dtype,
        trainer_dtype=cell.trainer_dtype,
        comparison=cell.comparison.to_dict(),
        diagnosis=cell.diagnosis.to_dict(),
        profiles=cell.profiles.to_dict(),
        rollout=cell.rollout.meta.to_dict(),
        trainer=cell.trainer.meta.to_dict(),
        pair_file=f"pairs/{name}",
        which_side=_side(cell, sides, scores),
    )
