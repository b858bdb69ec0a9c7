"""Signals: what the detectors look at, computed once per step and only where somebody asks.

In: Observed and its floor. Out: the values that are no log-probabilities, the body of the others,
and statistics over it. Identities and shapes: what must hold if the tokens were drawn from what
the engine reported (E[ρ] = 1), and the shape of rounding (std Δ ∝ 1 − p).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.body import (
    CERTAINTY_EPSILON,
    FEW_TOKENS,
    Body,
    Ints,
    noise_on_logits,
    reach_of,
    typical,
)
from driftscope_probes.diagnosis.estimates import (
    clustered_mean,
    trimmed_rms,
    variance_of_means,
    winsorised,
)
from driftscope_probes.diagnosis.floor import PRIOR_SIGMA, Floor
from driftscope_probes.diagnosis.observed import Observed
from driftscope_probes.mismatch.impossible import Impossible, find_impossible

#: Shapes are read on at most this many tokens: their error is then far below what any detector
#: asks for, and a step of 3.2M tokens costs no more than its comparison.
MAX_BODY_TOKENS = 2**14
#: Neighbours stay together, since shifts, runs and turns are read from them.
WINDOW = 16
GOLDEN = 0.6180339887498949  # its multiples fill the unit interval evenly
#: Ratios above e^5 are counted as e^5 in E[ρ]: one token must not carry the standard error.
MAX_LOG_RATIO = 5.0
#: Residuals below this fraction of the floor count as equal to it: that some tokens have the same
#: bits and others differ within rounding is no structure.
SMALLEST_RESIDUAL = 0.25


class Signals:
    """Lazily computed; every attribute is computed at most once."""

    def __init__(self, observed: Observed, floor: Floor) -> None:
        self.observed = observed
        self.floor = floor
        self.tokens = observed.tokens
        self.extras = observed.tokens.extras
        self.metadata = observed.metadata

    # What takes part ------------------------------------------------------------------------

    @cached_property
    def rows(self) -> Ints | None:
        """[unmasked] rows of the step; None where all take part."""
        mask = self.tokens.mask
        return None if mask is None else np.flatnonzero(mask)

    @cached_property
    def unmasked(self) -> int:
        return int(self.tokens.rollout.size if self.rows is None else self.rows.size)

    def step_rows(self, found: Ints) -> Ints:
        """Rows of the step, of rows among the unmasked."""
        return found if self.rows is None else self.rows[found]

    @cached_property
    def _pair(self) -> tuple[NDArray[Any], NDArray[Any]]:
        if self.rows is None:
            return self.tokens.rollout, self.tokens.trainer
        return self.tokens.rollout[self.rows], self.tokens.trainer[self.rows]

    @cached_property
    def same_bits(self) -> bool:
        """Both sides, for every unmasked token; NaN equals nothing."""
        rollout, trainer = self._pair
        return bool(np.array_equal(rollout, trainer))

    @cached_property
    def impossible(self) -> Impossible:
        rollout, trainer = self._pair
        return find_impossible(rollout, trainer, self.step_rows)

    @cached_property
    def grain(self) -> float:
        """Differences below it show nothing, in nats on the logits: the floor, or bf16's where
        quantised weights may move everything by more, all tokens alike."""
        return min(self.floor.sigma, PRIOR_SIGMA["bf16"])

    @cached_property
    def first_and_last(self) -> tuple[Ints, Ints]:
        """[sequences] rows of the first unmasked token and behind the last one."""
        limits = self.tokens.cu_seqlens
        first = np.zeros(self.tokens.sequences, np.int64)
        last = np.zeros(self.tokens.sequences, np.int64)
        before = self._unmasked_before
        filled = before[1:] > before[:-1]
        if self.rows is None:
            first[filled], last[filled] = limits[:-1][filled], limits[1:][filled]
        else:
            first[filled] = self.rows[before[:-1][filled]]
            last[filled] = self.rows[before[1:][filled] - 1] + 1
        return first, last

    @cached_property
    def _unmasked_before(self) -> Ints:
        """[sequences + 1] unmasked tokens before each limit."""
        limits: Ints = self.tokens.cu_seqlens
        return limits if self.rows is None else np.searchsorted(self.rows, limits)

    @cached_property
    def response_lengths(self) -> Ints:
        """[sequences] tokens from the first unmasked to the last."""
        first, last = self.first_and_last
        return last - first

    @cached_property
    def body(self) -> Body:
        rows = self._body_rows()
        bad = self.impossible.rows
        if bad.size:
            rows = rows[~np.isin(rows, bad, assume_unique=True)]
        sequence = np.searchsorted(self.tokens.cu_seqlens, rows, side="right") - 1
        first, last = self.first_and_last
        rollout = self.tokens.rollout[rows].astype(np.float64)
        trainer = self.tokens.trainer[rows].astype(np.float64)
        delta = trainer - rollout
        certainty = np.exp(np.minimum(rollout, 0.0))
        residual = delta / (1.0 - certainty + CERTAINTY_EPSILON)
        least = SMALLEST_RESIDUAL * self.grain
        return Body(
            rows,
            sequence,
            rows - first[sequence],
            last[sequence] - rows,
            rollout,
            trainer,
            delta,
            certainty,
            residual,
            np.log(np.maximum(np.abs(residual), least)),
        )

    def _body_rows(self) -> Ints:
        """All where they fit; else windows of neighbours from as many sequences as fit, their
        first and last tokens among them: every place of every sequence has its chance."""
        if self.unmasked <= MAX_BODY_TOKENS:
            return np.arange(self.unmasked) if self.rows is None else self.rows
        before = self._unmasked_before
        counts = np.diff(before)
        filled = np.flatnonzero(counts)
        most = MAX_BODY_TOKENS // (2 * WINDOW)
        chosen = filled[np.unique(np.linspace(0, filled.size - 1, most).astype(np.int64))]
        windows = max(2, MAX_BODY_TOKENS // (chosen.size * WINDOW))
        # Starts at even distances from the first token to the last window, moved a little from
        # sequence to sequence so that together they meet every index.
        room = np.maximum(counts[chosen] - WINDOW, 0)
        share = np.linspace(0.0, 1.0, windows)
        moved = (chosen[:, None] * GOLDEN) % 1.0 / max(1, windows - 1)
        moved = np.where((share > 0) & (share < 1), moved - 0.5 / max(1, windows - 1), 0.0)
        starts = (np.clip(share + moved, 0.0, 1.0) * room[:, None]).astype(np.int64)
        inside = starts[:, :, None] + np.arange(WINDOW)
        known = inside < counts[chosen][:, None, None]
        rows = np.unique((before[:-1][chosen][:, None, None] + inside)[known])
        return self.step_rows(rows)

    @cached_property
    def positions(self) -> Ints | None:
        """[body] absolute position in the context; None where nobody said how long prompts are."""
        if self.extras.position_ids is not None:
            return self.extras.position_ids[self.body.token].astype(np.int64)
        if self.extras.prompt_lengths is not None:
            return self.extras.prompt_lengths[self.body.sequence] + self.body.index
        first, _ = self.first_and_last
        lead = first - self.tokens.cu_seqlens[:-1]
        if lead.any():  # the prompts are there, masked
            return self.body.token - self.tokens.cu_seqlens[self.body.sequence]
        return None

    def per_token(self, values: NDArray[Any] | None) -> NDArray[Any] | None:
        """[body] of an optional [tokens] array."""
        return None if values is None else values[self.body.token]

    # Size and shape -------------------------------------------------------------------------

    @cached_property
    def sigma(self) -> float | None:
        """Noise on the logits in nats; a few wild tokens count as what they are."""
        return noise_on_logits(self.body)

    @cached_property
    def typical_sigma(self) -> float | None:
        """The same from medians: wild tokens do not count."""
        body = self.body
        unsure = body.certainty < 0.99
        if int(unsure.sum()) < FEW_TOKENS:
            return None
        return typical(body.residual[unsure])

    @cached_property
    def excess(self) -> float | None:
        return None if self.sigma is None else self.sigma / self.floor.sigma

    @cached_property
    def typical_excess(self) -> float | None:
        return None if self.typical_sigma is None else self.typical_sigma / self.floor.sigma

    @cached_property
    def mean_ratio(self) -> tuple[float, float]:
        """E[ρ] and its distance from 1 in standard errors that come from sequences."""
        rho = np.exp(np.minimum(self.body.delta, MAX_LOG_RATIO))
        mean, error = clustered_mean(rho, self.body.sequence)
        return mean, (mean - 1.0) / error if error > 0 else 0.0

    @cached_property
    def mean_delta(self) -> tuple[float, float]:
        """Mean Δ in nats, and its distance from 0 in standard errors from sequences."""
        mean, error = clustered_mean(np.clip(self.body.delta, -20, 20), self.body.sequence)
        return mean, mean / error if error > 0 else 0.0

    @cached_property
    def fraction_positive(self) -> float:
        """Of the tokens that differ by more than a twentieth of the floor."""
        shown = np.abs(self.body.residual) > 0.05 * self.floor.sigma
        if not shown.any():
            return 0.5
        return float((self.body.delta[shown] > 0).mean())

    @cached_property
    def sure_ratio(self) -> float | None:
        """Root mean square of Δ at p in (0.9, 0.99) over that at p in (0.1, 0.5): 0.05 to 0.1."""
        body = self.body
        sure = (body.certainty > 0.9) & (body.certainty < 0.99)
        unsure = (body.certainty > 0.1) & (body.certainty < 0.5)
        if sure.sum() < FEW_TOKENS or unsure.sum() < FEW_TOKENS:
            return None
        below = trimmed_rms(body.delta[unsure])
        return trimmed_rms(body.delta[sure]) / below if below > 0 else None

    @cached_property
    def kurtosis(self) -> float | None:
        """Of the residuals of tokens below p = 0.99; 3 for a normal distribution."""
        residual = self.body.residual[self.body.certainty < 0.99]
        if residual.size < 4 * FEW_TOKENS:
            return None
        centred = residual - residual.mean()
        second = float(np.mean(centred**2))
        return float(np.mean(centred**4)) / second**2 if second > 0 else None

    @cached_property
    def reach(self) -> float | None:
        """How far the outermost residuals go (99.5 %) over the typical ones, below p = 0.9.

        One rounding to a grid is bounded: below 3. Noise that came through a network: 3.3 and more.
        """
        return reach_of(self.body)

    @cached_property
    def advantage_correlation(self) -> tuple[float, float] | None:
        """Correlation of the residual with the advantage, and its z over sequences."""
        advantages = self.per_token(self.observed.advantages)
        if advantages is None:
            return None
        advantage = advantages.astype(np.float64)
        fine = np.isfinite(advantage) & (self.body.certainty < 0.999)
        if fine.sum() < FEW_TOKENS or np.ptp(advantage[fine]) == 0:
            return None
        residual = winsorised(self.body.residual[fine])
        product = (advantage[fine] - advantage[fine].mean()) * (residual - residual.mean())
        scale = float(np.std(advantage[fine]) * np.std(residual))
        if scale == 0:
            return None
        mean, error = clustered_mean(product, self.body.sequence[fine])
        return mean / scale, mean / error if error > 0 else 0.0

    @cached_property
    def id_effect(self) -> float | None:
        """Variance of the residuals' means per token id over what independent noise gives.

        Rounding does not know which token it rounds: about 1. Other weights move the same token
        the same way: 2 to 9 in the drill, more with more tokens.
        """
        ids = self.per_token(self.extras.token_ids)
        if ids is None:
            return None
        unsure = self.body.certainty < 0.99
        residual = winsorised(self.body.residual[unsure])
        if residual.size < 4 * FEW_TOKENS:
            return None
        _, group = np.unique(ids[unsure], return_inverse=True)
        return variance_of_means(residual - residual.mean(), group, least=4)

    @cached_property
    def sequence_effect(self) -> float | None:
        """Variance of Δ's means per sequence over their own squared errors: 0.5 to 1.4."""
        unsure = self.body.certainty < 0.999
        residual = winsorised(self.body.residual[unsure])
        if residual.size < 4 * FEW_TOKENS:
            return None
        return variance_of_means(residual, self.body.sequence[unsure], least=4)
