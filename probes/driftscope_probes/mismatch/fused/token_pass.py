"""The fused pass: every sequence block by block, every sum, count, extreme and bucket in one read.

In: PairedLogprobs. Out: TokenPass, a few numbers per sequence and two histograms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.mismatch.arrays import BoolArray, FloatArray, IntArray, LogprobArray
from driftscope_probes.mismatch.fused.block_counts import (
    COUNTS,
    NOTHING_COUNTS_BELOW,
    add_threshold_counts,
    add_to_histograms,
    place_tokens,
)
from driftscope_probes.mismatch.fused.block_loading import (
    ODDITIES,
    first_differing,
    load_any,
    load_plain,
)
from driftscope_probes.mismatch.fused.block_spread import SPREAD, block_spread, spread_between
from driftscope_probes.mismatch.fused.block_sums import (
    BITS_OF_INFINITY,
    BLOCK,
    EXTREMES,
    SUMS,
    Scratch,
    add_probability_terms,
    add_ratio_terms,
    new_scratch,
)
from driftscope_probes.mismatch.fused.compiled import compiled, kept_on_disk
from driftscope_probes.mismatch.fused.exp_parts import exp_and_expm1
from driftscope_probes.mismatch.fused.fine_buckets import BUCKETS
from driftscope_probes.mismatch.paired_logprobs import PairedLogprobs

# One row per given sequence, beside its sums.
ROWS = np.dtype(
    [
        ("kept", np.int64),  # tokens
        ("unmasked", np.int64),  # tokens
        ("first_differing", np.int64),  # −1: none differs
        ("rollout_anchor", np.float64),  # probabilities of the first kept token
        ("trainer_anchor", np.float64),
    ]
)


class TokenPass(NamedTuple):
    """Structured arrays, whose columns the dtypes name."""

    rows: NDArray[Any]  # [sequences given] ROWS
    sums: NDArray[Any]  # [sequences given] SUMS
    spread: NDArray[Any]  # [sequences given] SPREAD
    counts: NDArray[Any]  # [1] COUNTS
    extremes: NDArray[Any]  # [1] EXTREMES
    oddities: NDArray[Any]  # [1] ODDITIES
    abs_diff_buckets: IntArray  # [BUCKETS]
    ulp_buckets: IntArray  # [BUCKETS]

    def extreme(self, name: str) -> float:
        """An extreme as the number whose bits were kept."""
        return float(self.extremes[name].view(np.float64)[0])


class _Workspace(NamedTuple):
    scratch: Scratch
    buckets: IntArray  # [2, BLOCK]
    block: NDArray[Any]  # [1] SUMS of one block
    block_columns: FloatArray  # [1, columns], the same memory
    sum_columns: FloatArray  # [sequences given, columns], the memory of TokenPass.sums


def token_pass(pair: PairedLogprobs) -> TokenPass:
    """Holds nothing as long as the batch, but for a copy of arrays of unequal dtypes."""
    sequences = pair.cu_seqlens.size - 1
    found = TokenPass(
        rows=np.zeros(sequences, ROWS),
        sums=np.zeros(sequences, SUMS),
        spread=np.zeros(sequences, SPREAD),
        counts=np.zeros(1, COUNTS),
        extremes=np.zeros(1, EXTREMES),
        oddities=np.zeros(1, ODDITIES),
        abs_diff_buckets=np.zeros(BUCKETS, np.int64),
        ulp_buckets=np.zeros(BUCKETS, np.int64),
    )
    found.extremes["ratio_min"] = BITS_OF_INFINITY
    block = np.zeros(1, SUMS)
    workspace = _Workspace(
        new_scratch(),
        np.zeros((2, BLOCK), np.int64),
        block,
        _columns(block),
        _columns(found.sums),
    )
    _add_sequences(*as_compiled(pair), pair.cu_seqlens, workspace, found)
    return found


def _columns(rows: NDArray[Any]) -> FloatArray:
    return rows.view(np.float64).reshape(rows.size, len(SUMS.names or ()))


def as_compiled(pair: PairedLogprobs) -> tuple[LogprobArray, LogprobArray, BoolArray]:
    """The three arrays in the only two forms that are compiled: both float32 or both float64.

    Contiguous, aligned and read-only, whatever they were; each other form would compile anew.
    """
    rollout, trainer = pair.rollout, pair.trainer
    if rollout.dtype != trainer.dtype:
        rollout, trainer = rollout.astype(np.float64), trainer.astype(np.float64)
    mask = np.zeros(0, np.bool_) if pair.mask is None else pair.mask
    return _read_only(rollout), _read_only(trainer), _read_only(mask)


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = np.require(array, requirements=["C", "A"]).view()
    view.flags.writeable = False
    return view


@compiled
def _finish_block(tokens: int, sequence: int, work: _Workspace, found: TokenPass) -> None:
    scratch, block, row = work.scratch, work.block[0], found.rows[sequence]
    sums, spread, extremes = found.sums[sequence], found.spread[sequence], found.extremes[0]
    if row.kept == 0:
        row.rollout_anchor = exp_and_expm1(scratch.rollout[0])[0]
        row.trainer_anchor = exp_and_expm1(scratch.trainer[0])[0]
    largest = place_tokens(scratch, tokens, work.buckets, extremes)
    add_to_histograms(work.buckets, tokens, found.abs_diff_buckets, found.ulp_buckets)
    add_ratio_terms(scratch, tokens, block, extremes)
    anchors = (row.rollout_anchor, row.trainer_anchor)
    add_probability_terms(scratch, tokens, anchors, block, extremes)
    if largest > NOTHING_COUNTS_BELOW:
        add_threshold_counts(scratch, tokens, found.counts[0])
    block_spread(scratch, tokens, block, spread)
    spread_between(sums, row.kept, block, tokens, spread)
    row.kept += tokens
    for column in range(work.sum_columns.shape[1]):
        work.sum_columns[sequence, column] += work.block_columns[0, column]
        work.block_columns[0, column] = 0.0


@kept_on_disk
def _add_sequences(
    rollout: LogprobArray,
    trainer: LogprobArray,
    mask: BoolArray,
    limits: IntArray,
    work: _Workspace,
    found: TokenPass,
) -> None:
    odd = found.oddities[0]
    for sequence in range(found.rows.size):
        row = found.rows[sequence]
        row.first_differing = -1
        unmasked_before, differing_before = odd.unmasked, odd.differing
        start, end, filled = limits[sequence], limits[sequence + 1], 0
        place = start
        while place < end:
            piece = min(end - place, BLOCK - filled)
            if mask.size == 0 and load_plain(
                rollout, trainer, place, piece, work.scratch, filled, odd
            ):
                filled += piece
            else:
                filled = load_any(rollout, trainer, mask, place, piece, work.scratch, filled, odd)
            if row.first_differing < 0 and odd.differing > differing_before:
                row.first_differing = first_differing(rollout, trainer, mask, place) - start
            place += piece
            if filled == BLOCK or (place == end and filled > 0):
                _finish_block(filled, sequence, work, found)
                filled = 0
        row.unmasked = odd.unmasked - unmasked_before
