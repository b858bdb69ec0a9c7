"""The compiled loop over sequences and their blocks; what Python calls is add_sequences().

In: the given arrays. Out: TokenPass, filled in.
"""

from __future__ import annotations

from collections.abc import Callable

from driftscope_probes.mismatch.fused.block_counts import (
    NOTHING_COUNTS_BELOW,
    add_close_counts,
    add_threshold_counts,
    add_to_histograms,
    place_tokens,
)
from driftscope_probes.mismatch.fused.block_loading import first_differing, load_any, load_plain
from driftscope_probes.mismatch.fused.block_sums import (
    add_probability_terms,
    add_ratio_terms,
    block_spread,
    spread_between,
)
from driftscope_probes.mismatch.fused.close_sums import (
    add_close_probability_terms,
    add_close_ratio_terms,
    close_first,
)
from driftscope_probes.mismatch.fused.compiled import SOURCES, compiled, kept_on_disk
from driftscope_probes.mismatch.fused.exp_log import exp_and_expm1
from driftscope_probes.mismatch.fused.layouts import BLOCK, TokenPass, Workspace
from driftscope_probes.mismatch.number import BoolArray, IntArray, LogprobArray


@compiled
def finish_block(tokens: int, sequence: int, work: Workspace, found: TokenPass) -> None:
    scratch, block, row = work.scratch, work.block[0], found.rows[sequence]
    sums, spread, extremes = found.sums[sequence], found.spread[sequence], found.extremes[0]
    if row.kept == 0:
        row.rollout_anchor = exp_and_expm1(scratch.rollout[0])[0]
        row.trainer_anchor = exp_and_expm1(scratch.trainer[0])[0]
    largest, close = place_tokens(scratch, tokens, work.buckets, extremes)
    add_to_histograms(work.buckets, tokens, found.abs_diff_buckets, found.ulp_buckets)
    if close < tokens:
        close_first(scratch, tokens)
    anchors = (row.rollout_anchor, row.trainer_anchor)
    if close > 0:
        add_close_ratio_terms(scratch, close, block, extremes)
        add_close_probability_terms(scratch, close, anchors, block, extremes)
    if close < tokens:
        add_ratio_terms(scratch, close, tokens, block, extremes)
        add_probability_terms(scratch, close, tokens, anchors, block, extremes)
    if largest > NOTHING_COUNTS_BELOW:
        add_close_counts(scratch, close, found.counts[0])
        add_threshold_counts(scratch, close, tokens, found.counts[0])
    block_spread(scratch, tokens, block, spread)
    spread_between(sums, row.kept, block, tokens, spread)
    row.kept += tokens
    for column in range(work.sum_columns.shape[1]):
        work.sum_columns[sequence, column] += work.block_columns[0, column]
        work.block_columns[0, column] = 0.0


def _entry(sources: int) -> Callable[..., int]:
    @kept_on_disk
    def add_sequences(
        rollout: LogprobArray,
        trainer: LogprobArray,
        mask: BoolArray,
        limits: IntArray,
        work: Workspace,
        found: TokenPass,
    ) -> int:
        odd = found.oddities[0]
        for sequence in range(found.rows.size):
            row = found.rows[sequence]
            row.first_differing = -1
            unmasked_before, differing_before = odd.unmasked, odd.differing
            start, end, filled = limits[sequence], limits[sequence + 1], 0
            place = start
            while place < end:
                piece = min(end - place, BLOCK - filled)
                first, second = rollout[place : place + piece], trainer[place : place + piece]
                if mask.size == 0 and load_plain(first, second, work.scratch, filled, odd):
                    filled += piece
                else:
                    filled = load_any(
                        rollout, trainer, mask, place, piece, work.scratch, filled, odd
                    )
                if row.first_differing < 0 and odd.differing > differing_before:
                    row.first_differing = first_differing(rollout, trainer, mask, place) - start
                place += piece
                if filled == BLOCK or (place == end and filled > 0):
                    finish_block(filled, sequence, work, found)
                    filled = 0
            row.unmasked = odd.unmasked - unmasked_before
        return sources

    return add_sequences


add_sequences = _entry(SOURCES)
