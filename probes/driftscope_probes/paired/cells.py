"""Every cell of the grid: compared, diagnosed, and once more with one thing taken away.

In: the rollouts and the trainer's forwards. Out: Compared, and what of each cell is a random draw
or other weights. Free of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from driftscope_probes.diagnosis.cause import Diagnosis
from driftscope_probes.diagnosis.diagnose import diagnose
from driftscope_probes.diagnosis.floor import Floor
from driftscope_probes.diagnosis.observed import Observed
from driftscope_probes.dtypes import Dtype
from driftscope_probes.engines.rollout import Rollout
from driftscope_probes.mismatch import Comparison, Profiles, compare_tokens, profiles_of
from driftscope_probes.models.folder import ModelFolder
from driftscope_probes.paired.parts import (
    CellParts,
    Dropout,
    Forwards,
    QuietCell,
    Weights,
    cell_parts,
    dropout_sentence,
    weights_sentence,
)
from driftscope_probes.paired.request import PairedRequest
from driftscope_probes.paired.sides import Scores
from driftscope_probes.paired.weights import TrainerWeights
from driftscope_probes.paired.which_side import REFERENCE_MODE, Errors, WhichSide, errors_of
from driftscope_probes.trace import Trace, both_sides
from driftscope_probes.trace_file import pair_metadata

FloorOf = Callable[[str, str], Floor | None]  # of an engine dtype and a trainer mode


@dataclass(frozen=True, slots=True)
class Compared:
    """One engine dtype against one trainer mode."""

    engine_dtype: Dtype
    trainer_dtype: str
    rollout: Trace
    trainer: Trace
    known: Mapping[str, str]  # metadata beyond what the traces say of themselves
    comparison: Comparison
    profiles: Profiles
    diagnosis: Diagnosis
    parts: CellParts | None  # None: both sides have the same weights

    @property
    def key(self) -> tuple[str, str]:
        return self.engine_dtype, self.trainer_dtype


def compare_all(
    request: PairedRequest,
    rollouts: Mapping[Dtype, Rollout],
    scores: Scores,
    weights: TrainerWeights,
    floor_of: FloorOf,
) -> list[Compared]:
    return [
        _compared(request, dtype, mode, rollout.trace, scores, weights, floor_of)
        for dtype, rollout in rollouts.items()
        for mode in request.trainer_dtypes
    ]


def _compared(
    request: PairedRequest,
    dtype: Dtype,
    mode: str,
    rollout: Trace,
    scores: Scores,
    weights: TrainerWeights,
    floor_of: FloorOf,
) -> Compared:
    trainer = scores.traces[dtype, mode]
    tokens = both_sides(rollout, trainer)
    comparison, _ = compare_tokens(tokens, resamples=request.resamples)
    parts = None
    if request.other_weights:
        quiet, engines = scores.quiet.get((dtype, mode)), scores.engine_weights[dtype, mode]
        parts = cell_parts(dtype, mode, Forwards(rollout, trainer, quiet, engines))
    known = _known_of(weights, scores, parts)
    metadata = pair_metadata(rollout, trainer) | known
    return Compared(
        engine_dtype=dtype,
        trainer_dtype=mode,
        rollout=rollout,
        trainer=trainer,
        known=known,
        comparison=comparison,
        profiles=profiles_of(tokens),
        diagnosis=diagnose(Observed(tokens, metadata), floor_of(dtype, mode)),
        parts=parts,
    )


def _known_of(weights: TrainerWeights, scores: Scores, parts: CellParts | None) -> dict[str, str]:
    """Metadata that the diagnosis reads, named as in the push format."""
    known = {}
    if weights.adapter is not None:
        known["adapter"] = weights.adapter.path.name
    if scores.quiet:
        known["trainer_dropout"] = ", ".join(rate.words for rate in scores.rates) or "drawn"
    part = None if parts is None else parts.part("weights")
    if part is not None and part.fraction is not None:
        known["weights_fraction"] = f"{part.fraction:.4f}"
    return known


def errors_of_all(cells: Sequence[Compared], scores: Scores) -> dict[tuple[str, str], Errors]:
    """Against an FP32 forward that draws nothing: a draw is an error of the trainer's."""
    exact = {**scores.traces, **scores.quiet}
    return {
        cell.key: errors_of(cell.rollout, cell.trainer, exact[cell.engine_dtype, REFERENCE_MODE])
        for cell in cells
    }


def side_of(
    cell: Compared, sides: Mapping[tuple[str, str], WhichSide], scores: Scores
) -> WhichSide | None:
    """None where the weights differ, and for two sides in FP32 of which one draws at random: what
    they differ by is not a matter of precision.
    """
    side = sides.get(cell.key)
    drawn = side is not None and side.carries == "unknown" and cell.key in scores.quiet
    return None if drawn else side


def dropout_of(
    cells: Sequence[Compared], scores: Scores, floor_of: FloorOf, resamples: int
) -> Dropout | None:
    """Every cell once more without what the trainer draws at random; None where nothing is."""
    quiet = [
        _quiet(cell, scores.quiet[cell.key], floor_of, resamples)
        for cell in cells
        if cell.key in scores.quiet
    ]
    if not quiet:
        return None
    sentence = dropout_sentence(scores.rates, quiet)
    return Dropout(rates=scores.rates, sentence=sentence, cells=tuple(quiet))


def _quiet(cell: Compared, trainer: Trace, floor_of: FloorOf, resamples: int) -> QuietCell:
    tokens = both_sides(cell.rollout, trainer)
    comparison, _ = compare_tokens(tokens, resamples=resamples)
    known = {name: said for name, said in cell.known.items() if name != "trainer_dropout"}
    metadata = pair_metadata(cell.rollout, trainer) | known
    return QuietCell(
        engine_dtype=cell.engine_dtype,
        trainer_dtype=cell.trainer_dtype,
        abs_diff_mean=cell.comparison.to_dict()["abs_diff_mean"],
        comparison=comparison.to_dict(),
        diagnosis=diagnose(Observed(tokens, metadata), floor_of(*cell.key)).to_dict(),
    )


def weights_of(
    request: PairedRequest,
    engine: ModelFolder,
    trainer: TrainerWeights,
    cells: Sequence[Compared],
) -> Weights | None:
    """Every cell split into weights and kernels; None where both sides have the same weights."""
    parts = tuple(cell.parts for cell in cells if cell.parts is not None)
    if not parts:
        return None
    adapter = trainer.adapter
    return Weights(
        engine=engine.facts(request.model),
        trainer=trainer.model.facts(trainer.model.name),
        adapter=None if adapter is None else adapter.to_dict(),
        engine_adapter=request.engine_adapter,
        sentence=weights_sentence(
            request.model,
            trainer.model.name,
            None if adapter is None else adapter.path.name,
            parts,
            request.engine_adapter,
        ),
        cells=parts,
    )
