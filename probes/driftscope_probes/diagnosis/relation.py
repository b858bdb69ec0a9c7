"""Relation: how the trainer's log-probability follows from the engine's.

In: Signals. Out: shifts and swaps of rows, lines through the origin, softmaxes at another
temperature, one-sidedness, grids of stored values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from driftscope_probes.diagnosis.body import (
    CERTAINTY_EPSILON,
    FEW_TOKENS,
    Bools,
    Floats,
    Ints,
    typical,
)
from driftscope_probes.diagnosis.signals import Signals
from driftscope_probes.mismatch.number import dot
from driftscope_probes.mismatch.stored_bits import significant_bits

LAGS = (-3, -2, -1, 1, 2, 3)
#: Squared difference at the better lag over that in place: a shift leaves only rounding.
SHIFTED_BELOW = 0.25
#: Tokens that a swapped row has to match in, and rows that are tried against each other.
SWAP_TOKENS, SWAP_ROWS = 48, 256
#: A difference that cannot be a shift or a swap: rounding of half a nat is no model's.
UNLIKE = 0.3
#: Nobody divides by a temperature of ten; and a line needs points that differ.
SMALLEST_SLOPE, SMALLEST_SPREAD = 0.1, 0.1
#: Standard errors of E[ρ] above 1 from which the tokens were not drawn from what the engine says.
DRAWN_FROM_TRAINER = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Shift:
    lag: int  # trainer[i] is the rollout's [i + lag]
    sequences: Bools  # [sequences] shifted
    correlation: float  # at the lag, in those
    in_place: float  # at 0, in those


@dataclass(frozen=True, slots=True)
class Scaled:
    """A softmax at another temperature: trainer's logits are `power` times the engine's."""

    power: float
    explained: float  # fraction of the variance of Δ that r (and the entropy) explain
    purity: float  # how one-signed Δ is at p in (0.6, 0.98): 0 to 1, and 1 for a softmax
    direction: float  # +1: the trainer is sharper, -1: flatter
    opposite: float  # sign agreement of the unlikely tokens with the other direction, -1 to 1


class Relation:
    def __init__(self, signals: Signals) -> None:
        self.signals = signals
        self.body = signals.body

    # Rows -----------------------------------------------------------------------------------

    @cached_property
    def unlike_sequences(self) -> Bools:
        """[sequences] whose two sides are far apart over the whole."""
        squares = np.bincount(
            self.body.sequence,
            np.minimum(self.body.delta**2, 100.0),
            minlength=self.signals.tokens.sequences,
        )
        counts = np.bincount(self.body.sequence, minlength=self.signals.tokens.sequences)
        unlike: Bools = squares / np.maximum(counts, 1) > UNLIKE**2
        return unlike

    @cached_property
    def shift(self) -> Shift | None:
        body, sequences = self.body, self.signals.tokens.sequences
        if body.tokens < FEW_TOKENS or not self.unlike_sequences.any():
            return None
        rollout, trainer = np.maximum(body.rollout, -30), np.maximum(body.trainer, -30)
        best: Shift | None = None
        for lag in LAGS:
            here = np.arange(max(0, -lag), body.tokens - max(0, lag))
            there = here + lag
            # Neighbours in the body are neighbours in the response where their indices say so.
            same = (body.sequence[here] == body.sequence[there]) & (
                body.index[there] - body.index[here] == lag
            )
            here, there = here[same], there[same]
            sequence = body.sequence[here]
            moved = np.bincount(sequence, (trainer[here] - rollout[there]) ** 2, sequences)
            still = np.bincount(sequence, (trainer[here] - rollout[here]) ** 2, sequences)
            counts = np.bincount(sequence, minlength=sequences)
            shifted = (counts >= 4) & (moved < SHIFTED_BELOW * still) & self.unlike_sequences
            if not shifted.any():
                continue
            part = shifted[sequence]
            if part.sum() < FEW_TOKENS // 2:
                continue
            found = Shift(
                lag,
                shifted,
                correlation(trainer[here][part], rollout[there][part]),
                correlation(trainer[here][part], rollout[here][part]),
            )
            if best is None or found.sequences.sum() > best.sequences.sum():
                best = found
        return best

    @cached_property
    def swapped(self) -> Ints:
        """[pairs, 2] sequences i and j: the trainer's row i is the rollout's row j."""
        none = np.zeros((0, 2), np.int64)
        suspects = np.flatnonzero(self.unlike_sequences)[:SWAP_ROWS]
        if suspects.size == 0:
            return none
        # Another suspect is the likely partner; all rows are tried where there are few.
        partners = suspects
        rows = {int(i): i for i in partners}
        rollout = np.full((len(rows), SWAP_TOKENS), np.nan)
        trainer = np.full((len(rows), SWAP_TOKENS), np.nan)
        for place, sequence in enumerate(rows):
            inside = np.flatnonzero(self.body.sequence == sequence)[:SWAP_TOKENS]
            rollout[place, : inside.size] = self.body.rollout[inside]
            trainer[place, : inside.size] = self.body.trainer[inside]
        found = []
        for place, sequence in enumerate(rows):
            difference = (trainer[place][None, :] - rollout) ** 2
            known = np.isfinite(difference)
            matched = known.sum(1)
            mean = np.where(known, difference, 0.0).sum(1) / np.maximum(matched, 1)
            mean[matched < 4] = np.inf
            own = mean[place]
            mean[place] = np.inf
            other = int(np.argmin(mean))
            if mean[other] < SHIFTED_BELOW**2 * own and mean[other] < UNLIKE**2:
                found.append((sequence, list(rows)[other]))
        return np.array(found, np.int64) if found else none

    # Scales ---------------------------------------------------------------------------------

    @cached_property
    def origin_line(self) -> tuple[float, float, float] | None:
        """Slope of t = slope · r, noise left over in nats on the logits, noise of Δ itself."""
        body = self.body
        far = body.rollout < -0.05
        if far.sum() < FEW_TOKENS:
            return None
        rollout, trainer = body.rollout[far], body.trainer[far]
        slope = float(np.median(trainer / rollout))
        if slope < SMALLEST_SLOPE or np.std(rollout) < SMALLEST_SPREAD * abs(rollout.mean()):
            return None  # a constant lies on any line
        left = (trainer - slope * rollout) / (1.0 - body.certainty[far] + CERTAINTY_EPSILON)
        return slope, typical(left), typical(body.residual[far])

    @cached_property
    def scaled(self) -> Scaled | None:
        body = self.body
        # The side that the tokens were drawn from: where E[ρ] is above 1, that is the trainer's.
        drawn = body.certainty
        if self.signals.mean_ratio[1] > DRAWN_FROM_TRAINER:
            drawn = np.exp(np.minimum(body.trainer, 0.0))
        likely = (drawn > 0.6) & (drawn < 0.98)
        unlikely = drawn < 0.15
        if likely.sum() < FEW_TOKENS // 2 or unlikely.sum() < FEW_TOKENS // 2:
            return None
        purity = 2 * float((body.delta[likely] > 0).mean()) - 1
        opposite = 2 * float((body.delta[unlikely] > 0).mean()) - 1
        direction = 1.0 if purity >= 0 else -1.0
        return Scaled(
            self._power(), self._explained(), abs(purity), direction, -direction * opposite
        )

    def _power(self) -> float:
        """Odds of a token against the rest to the power a are the odds at temperature 1/a, times
        what depends on how many tokens share the rest: the slope of the log odds is a."""
        body = self.body
        inner = (body.certainty > 0.2) & (body.certainty < 0.995) & (body.trainer < -1e-4)
        inner &= body.trainer > -20
        if inner.sum() < FEW_TOKENS:
            return 1.0
        odds_r = _log_odds(body.rollout[inner])
        odds_t = _log_odds(body.trainer[inner])
        return theil_slope(odds_r, odds_t)

    def _explained(self) -> float:
        """Of the variance of Δ over tokens below p = 0.98, by r and the trainer's entropy."""
        body = self.body
        open_tokens = body.certainty < 0.98
        if open_tokens.sum() < 2 * FEW_TOKENS:
            return 0.0
        delta = np.clip(body.delta[open_tokens], -8, 8)
        rollout = np.maximum(body.rollout[open_tokens], -15)
        columns = [np.ones_like(delta), rollout, rollout**2, body.certainty[open_tokens]]
        entropy = self.signals.per_token(self.signals.extras.entropy)
        if entropy is not None and np.isfinite(entropy).all():
            inner = entropy[open_tokens].astype(np.float64)
            columns += [inner, inner**2, inner * rollout]
        design = np.stack(columns, 1)
        fitted, *_ = np.linalg.lstsq(design, delta, rcond=None)
        left = delta - design @ fitted
        total = float(np.sum((delta - delta.mean()) ** 2)) + float(delta.size * delta.mean() ** 2)
        return 1.0 - float(np.sum(left**2)) / total if total > 0 else 0.0

    # Sides ----------------------------------------------------------------------------------

    @cached_property
    def one_sided(self) -> float:
        """-1: the trainer is below the engine wherever they differ by more than rounding; +1:
        above; 0: as often as not."""
        body = self.body
        shown = np.abs(body.residual) > 4.0 * self.signals.grain
        shown &= np.abs(body.delta) > 0.25 * self.signals.grain
        if shown.sum() < FEW_TOKENS // 2:
            return 0.0
        return 2 * float((body.delta[shown] > 0).mean()) - 1

    # Stored values --------------------------------------------------------------------------

    @cached_property
    def stored_bits(self) -> tuple[int, int]:
        """Significant bits that the engine's and the trainer's values need: 24 for float32."""
        return significant_bits(self.body.rollout), significant_bits(self.body.trainer)


def correlation(x: Floats, y: Floats) -> float:
    if x.size < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return max(-1.0, min(1.0, dot(x, y) / math.sqrt(dot(x, x) * dot(y, y))))


def theil_slope(x: Floats, y: Floats) -> float:
    """Median slope of pairs half the range apart: one wild token in three leaves it alone."""
    order = np.argsort(x, kind="stable")
    half = x.size // 2
    low, high = order[:half], order[x.size - half :]
    run = x[high] - x[low]
    fine = run > 1e-6
    if not fine.any():
        return 1.0
    return float(np.median((y[high] - y[low])[fine] / run[fine]))


def _log_odds(logprob: Floats) -> Floats:
    odds: Floats = logprob - np.log(-np.expm1(np.minimum(logprob, -1e-9)))
    return odds
