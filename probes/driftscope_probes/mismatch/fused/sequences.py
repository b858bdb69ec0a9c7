"""Compiled loops over sequences: add_sequences() for a comparison, the rest for the frameworks.

In: the given arrays. Out: TokenPass, filled in; values of each token; counts by sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

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
    squared,
)
from driftscope_probes.mismatch.fused.close_sums import (
    add_close_probability_terms,
    add_close_ratio_terms,
    close_first,
)
from driftscope_probes.mismatch.fused.compiled import SOURCES, compiled, inlined, kept_on_disk
from driftscope_probes.mismatch.fused.exp_log import exp_and_expm1
from driftscope_probes.mismatch.fused.float_bits import fma
from driftscope_probes.mismatch.fused.layouts import BLOCK, TokenPass, Workspace
from driftscope_probes.mismatch.fused.ratio_terms import LN_2
from driftscope_probes.mismatch.number import BoolArray, FloatArray, IntArray, LogprobArray
from driftscope_probes.mismatch.terms import (
    LEAST_RATIO,
    LEAST_RHO,
    LINEAR_ABOVE,
    MILES_K3_CLAMP,
    MIS_UPPER,
    PROBABILITY_CLAMP,
    RHO_UPPER,
    SERIES_BELOW,
)

Columns: TypeAlias = tuple[FloatArray, ...]


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


@inlined
def quotient(value: float, divisor: float, inverse: float) -> float:
    """value / divisor, correctly rounded (Markstein) unless it underflows; several times as fast.

    inverse: 1 / divisor, rounded.
    """
    near = value * inverse
    return fma(fma(-near, divisor, value), inverse, near)


@inlined
def k3_term(diff: float, expm1: float) -> float:
    """As terms.py has it, to the last bit: a quotient that underflows is lost beside the 1."""
    factor = quotient(diff, 7.0, 1.0 / 7.0) + 1.0
    factor = factor * quotient(diff, 6.0, 1.0 / 6.0) + 1.0
    factor = factor * quotient(diff, 5.0, 1.0 / 5.0) + 1.0
    factor = factor * (diff * 0.25) + 1.0
    factor = factor * quotient(diff, 3.0, 1.0 / 3.0) + 1.0
    near = factor * diff * diff * 0.5
    return expm1 - diff if abs(diff) >= SERIES_BELOW else near


@inlined
def clamped(value: float, low: float, high: float) -> float:
    """NaN stays NaN, as in numpy."""
    return low if value < low else (high if value > high else value)


def _of_frameworks(sources: int) -> tuple[Callable[..., int], ...]:
    """columns and rows are tuples: a row is known to be contiguous then, and loops vectorise."""

    @kept_on_disk
    def write_summed(columns: Columns, rows: Columns, rest: FloatArray) -> int:
        """What is made of numpy's functions; binary_kl and rest: what it needs logarithms of."""
        diff, ratio, k3, _, rollouts, trainers = columns
        _, gap, _, _, excess, clamped_k3, capped_ratio, tv, kl = rows
        for i in range(diff.size):
            k3[i] = k3_term(diff[i], excess[i])
            excess[i] = abs(excess[i])
        for i in range(diff.size):
            clamped_k3[i] = clamped(k3[i], -MILES_K3_CLAMP, MILES_K3_CLAMP)
            capped_ratio[i] = clamped(ratio[i], LEAST_RATIO, MIS_UPPER)
        for i in range(diff.size):
            p = clamped(rollouts[i], PROBABILITY_CLAMP, 1.0 - PROBABILITY_CLAMP)
            q = clamped(trainers[i], PROBABILITY_CLAMP, 1.0 - PROBABILITY_CLAMP)
            gap[i] = abs(trainers[i] - rollouts[i])
            tv[i] = abs(p - q)
            kl[i] = p / q
            rest[i] = (1.0 - p) / (1.0 - q)
        return sources

    @kept_on_disk
    def write_binary_kl(rollouts: FloatArray, kl: FloatArray, rest: FloatArray) -> int:
        """From the logarithms of the quotients of the probability of a token and of the rest."""
        for i in range(rest.size):
            p = clamped(rollouts[i], PROBABILITY_CLAMP, 1.0 - PROBABILITY_CLAMP)
            kl[i] = p * kl[i] + (1.0 - p) * rest[i]
        return sources

    @kept_on_disk
    def write_totalled(columns: Columns, rows: Columns, scales: FloatArray) -> int:
        """reverse_k3 and mixture: what they need numpy's functions of."""
        diff, ratio, k3, _, rollouts, trainers = columns
        abs_diff, gap, minus, quarter, reverse_kl, chi2, rho, first, second = rows
        for i in range(diff.size):
            abs_diff[i] = abs(diff[i])
            minus[i] = -diff[i]
            quarter[i] = 0.5 * (0.5 * abs(diff[i]))
        for i in range(diff.size):
            excess = k3[i] + diff[i]
            chi2[i] = excess * (excess + 2.0)
            rho[i] = clamped(ratio[i], LEAST_RHO, RHO_UPPER)
        for i in range(diff.size):
            gap[i] = abs(trainers[i] - rollouts[i])
            reverse_kl[i] = rollouts[i] * -diff[i]
        for i in range(diff.size):
            first[i] = rollouts[i] / scales[0, 0] - scales[0, 1]
            second[i] = trainers[i] / scales[1, 0] - scales[1, 1]
        return sources

    @kept_on_disk
    def write_mixture(diff: FloatArray, reverse_k3: FloatArray, mixture: FloatArray) -> int:
        """From expm1(−Δ), and from ln cosh(Δ/2) where it does not overflow."""
        for i in range(diff.size):
            reverse_k3[i] = k3_term(-diff[i], reverse_k3[i])
        for i in range(diff.size):
            half = 0.5 * abs(diff[i])
            mixture[i] = half - LN_2 if half > LINEAR_ABOVE else mixture[i]
        return sources

    @kept_on_disk
    def write_squares(
        columns: Columns, rows: Columns, centres: FloatArray, scales: FloatArray
    ) -> int:
        diff, ratio, k3, _, rollouts, trainers = columns
        of_diff, of_k3, of_ratio, of_gap, first, second = rows
        for i in range(diff.size):
            of_diff[i] = squared(abs(diff[i]) - centres[0])
            of_k3[i] = squared(k3[i] - centres[1])
            of_ratio[i] = squared(ratio[i] - centres[2])
        for i in range(diff.size):
            of_gap[i] = squared(abs(trainers[i] - rollouts[i]) - centres[3])
        for i in range(diff.size):
            first[i] = ((rollouts[i] / scales[0, 0] - scales[0, 1]) - scales[0, 2]) / scales[0, 3]
            second[i] = ((trainers[i] / scales[1, 0] - scales[1, 1]) - scales[1, 2]) / scales[1, 3]
        return sources

    @kept_on_disk
    def count_beyond(
        values: FloatArray, limits: IntArray, above: Any, below: Any, counts: IntArray
    ) -> int:
        """counts: [sequences, above + below + 1] how many are, and how many are no numbers."""
        for sequence in range(limits.size - 1):
            part = values[limits[sequence] : limits[sequence + 1]]
            row = counts[sequence]
            for k in range(len(above)):
                count = 0
                for i in range(part.size):
                    count += part[i] > above[k]
                row[k] = count
            for k in range(len(below)):
                count = 0
                for i in range(part.size):
                    count += part[i] < below[k]
                row[len(above) + k] = count
            count = 0
            for i in range(part.size):
                count += part[i] != part[i]
            row[len(above) + len(below)] = count
        return sources

    return write_summed, write_binary_kl, write_totalled, write_mixture, write_squares, count_beyond


write_summed, write_binary_kl, write_totalled, write_mixture, write_squares, count_beyond = (
    _of_frameworks(SOURCES)
)
