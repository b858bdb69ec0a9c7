"""The analysis of a step that is too large for one process: shard by shard, and merged exactly.

In: the shards of a step, one after another or on several machines. Out: one Analysis. Its numbers
are those of the whole step bit for bit; what needs every token at once is undefined, and says so.
The diagnosis looks at whole sequences of one shard: the one that is furthest from its floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from driftscope_probes.analysis import Analysis, analyze_step
from driftscope_probes.diagnosis.floor import Floor
from driftscope_probes.diagnosis.observed import compared_tokens
from driftscope_probes.mismatch.comparison import compare_shards
from driftscope_probes.mismatch.resampling import DEFAULT_RESAMPLES
from driftscope_probes.mismatch.shard import Shard, shard_of
from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.push.step_file import check_same_metadata
from driftscope_probes.verdicts import COMPARISON_RANK


@dataclass(frozen=True, slots=True)
class ShardAnalysis:
    """What one process finds in its share of a step; a few numbers per sequence."""

    tokens: int
    sequences: int
    metadata: Mapping[str, str]
    shard: Shard
    analysis: Analysis  # of this share alone, without intervals

    @property
    def badness(self) -> tuple[int, float]:
        """The higher, the further from what rounding explains."""
        diagnosis = self.analysis.diagnosis
        return COMPARISON_RANK[diagnosis.verdict], diagnosis.excess or 0.0


def analyze_shard(step: PushedStep, floor: Floor | None = None) -> ShardAnalysis:
    """Whole sequences of a step. Raises TraceError for arrays that do not fit."""
    tokens = compared_tokens(step)
    return ShardAnalysis(
        tokens=step.tokens,
        sequences=step.sequences,
        metadata=dict(step.metadata),
        shard=shard_of(tokens.rollout, tokens.trainer, tokens.cu_seqlens, tokens.mask),
        analysis=analyze_step(step, resamples=0, floor=floor),
    )


def merge_analyses(
    shards: Sequence[ShardAnalysis], *, resamples: int = DEFAULT_RESAMPLES
) -> Analysis:
    """In order of shards, at least one. Raises PushError where their metadata differ."""
    for number, one in enumerate(shards):
        check_same_metadata(number, one.metadata, shards[0].metadata)
    comparison, histogram = compare_shards([one.shard for one in shards], resamples=resamples)
    furthest = max(range(len(shards)), key=lambda number: shards[number].badness)
    shown = shards[furthest].analysis
    note = (
        f"This step was analysed in {len(shards)} shards: the comparison is that of all of them; "
        f"diagnosis, hygiene and routing are those of shard {furthest}, which is furthest from "
        "its floor; the names of frameworks and their presets are left out."
    )
    return replace(
        shown,
        comparison=comparison,
        abs_diff_histogram=histogram,
        aliases={},
        presets={},
        notes=(*shown.notes, note),
    )
