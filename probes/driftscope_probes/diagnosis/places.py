"""Places: which tokens differ more than the others, as splits of the body in two.

In: Signals. Out: splits by sequence, label, position, distance from the end, turn. Every split is
judged by the same sum of squares of log |residual|, so that they can be compared: whatever
accounts for most of it says where the fault acts. Null: the log of a normal variable's size has
variance π²/8 whatever its scale, so a split of n tokens gains about χ²(1) by chance.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.body import FEW_TOKENS, Body, Bools, Floats, Ints, typical
from driftscope_probes.diagnosis.signals import Signals
from driftscope_probes.diagnosis.split import (
    MAX_COORDINATE,
    Split,
    best_cut,
    better,
    small_groups,
    split_of,
)

#: A split has to gain this much in units of the variance within: χ²(1) beyond 30 has p = 4e-8, so
#: a search over thousands of cuts still finds nothing by chance.
SMALLEST_GAIN = 30.0
#: A split that was fixed before anybody looked (a label that was pushed): χ²(1) beyond 12 has
#: p = 5e-4.
SMALLEST_STATED_GAIN = 12.0
#: The first tokens of a response may have the same bits for another reason: prefill.
PLACES_BEFORE_ONSET = 12
#: Periods that a round-robin over replicas or workers may have.
PERIODS = tuple(range(2, 17))
#: Certain up to what float32 and bf16 logits resolve: its Δ is 0 by rounding, not by agreement.
OPEN_BELOW = 0.99
#: A token is wild from this many typical residuals on (normal: 2e-9; the shape of rounding has
#: heavier tails, 12 was the largest of healthy pairs).
WILD = 8.0


class Places:
    """Splits of one step's body; None where nothing speaks for one."""

    def __init__(self, signals: Signals) -> None:
        self.signals = signals
        self.body = signals.body.of(self._open(signals.body, signals.floor.sigma))

    @cached_property
    def variance(self) -> float:
        """Of log |residual| within sequences."""
        body = self.body
        if body.tokens < 2:
            return 1.0
        counts = np.bincount(body.sequence)
        means = np.bincount(body.sequence, body.size) / np.maximum(counts, 1)
        within = float(np.sum((body.size - means[body.sequence]) ** 2))
        return max(0.1, within / max(1, body.tokens - int((counts > 0).sum())))

    def _open(self, body: Body, floor: float) -> Bools:
        """Tokens whose two values can differ: one that is certain on both sides shows nothing,
        because its log-probability has rounded to 0."""
        self.rows: Bools = (body.certainty < OPEN_BELOW) | (np.abs(body.delta) > floor)
        return self.rows

    @cached_property
    def positions(self) -> Ints | None:
        """Absolute positions of the open tokens; None where they are unknown."""
        positions = self.signals.positions
        return None if positions is None else positions[self.rows]

    # Between sequences ----------------------------------------------------------------------

    @cached_property
    def _sequences(self) -> tuple[Ints, Floats, Floats]:
        """Sequences with tokens in the body: index, number of tokens, mean log size."""
        counts = np.bincount(self.body.sequence, minlength=self.signals.tokens.sequences)
        sums = np.bincount(
            self.body.sequence, self.body.size, minlength=self.signals.tokens.sequences
        )
        present = np.flatnonzero(counts)
        weights = counts[present].astype(np.float64)
        return present, weights, sums[present] / weights

    @cached_property
    def two_groups(self) -> Split | None:
        """Sequences in two groups, clean and not, wherever they lie."""
        present, weights, means = self._sequences
        if present.size < 4:
            return None
        order = np.argsort(means, kind="stable")
        cut, _ = best_cut(weights[order], means[order])
        if cut is None:
            return None
        dirty = np.zeros(self.signals.tokens.sequences, np.bool_)
        dirty[present[order[cut:]]] = True
        return split_of(self.body, dirty[self.body.sequence], 0.0, SMALLEST_GAIN)

    @cached_property
    def two_kinds(self) -> float:
        """Fraction of the variance of the sequences' means that two groups explain."""
        present, weights, means = self._sequences
        if present.size < 4 or self.two_groups is None:
            return 0.0
        dirty = self.dirty_sequences[present]
        centre = np.average(means, weights=weights)
        total = float(np.sum(weights * (means - centre) ** 2))
        within = sum(
            float(
                np.sum(
                    weights[part]
                    * (means[part] - np.average(means[part], weights=weights[part])) ** 2
                )
            )
            for part in (dirty, ~dirty)
            if part.any()
        )
        return 1.0 - within / total if total > 0 else 0.0

    @cached_property
    def dirty_sequences(self) -> Bools:
        """[sequences] those of the dirtier group."""
        dirty = np.zeros(self.signals.tokens.sequences, np.bool_)
        if self.two_groups is not None:
            dirty[self.body.sequence[self.two_groups.dirty]] = True
        return dirty

    @cached_property
    def block(self) -> Split | None:
        """One run of neighbouring sequences (a rank's share) against all others."""
        present, weights, means = self._sequences
        if present.size < 6:
            return None
        centre = float(np.average(means, weights=weights))
        rise = np.cumsum(weights * (means - centre))
        before = np.concatenate([[0.0], rise])
        total = np.concatenate([[0.0], np.cumsum(weights)])
        # The run between the lowest and the highest point of the walk, and its ends.
        best: Split | None = None
        low = int(np.argmin(before))
        high = int(np.argmax(before))
        runs = {(low, high), (0, high), (low, present.size)}
        for start, stop in sorted(runs):
            if not 0 <= start < stop <= present.size or total[stop] - total[start] == total[-1]:
                continue
            dirty = np.zeros(self.signals.tokens.sequences, np.bool_)
            dirty[present[start:stop]] = True
            found = split_of(self.body, dirty[self.body.sequence], float(start), SMALLEST_GAIN)
            best = better(best, found)
        return best

    @cached_property
    def periodic(self) -> Split | None:
        """Every k-th sequence: a replica or worker in a round."""
        present, _, _ = self._sequences
        best: Split | None = None
        for period in PERIODS:
            if present.size < 3 * period:
                break
            found = self.by_token_label(self.body.sequence % period, period)
            # A multiple of the true period gains as much: the shortest wins unless one is better.
            if found is not None and (best is None or found.gain > 1.15 * best.gain):
                best = found
        return best

    def by_label(self, labels: NDArray[np.integer], at: float = 0.0) -> Split | None:
        """[sequences] labels: the values in two groups, at the best cut of their means."""
        labels = np.asarray(labels)
        return self.by_token_label(
            np.asarray(labels)[self.body.sequence], at, least=SMALLEST_STATED_GAIN
        )

    # Along the sequence ---------------------------------------------------------------------

    @cached_property
    def onset(self) -> Split | None:
        """From one response index on, in all sequences."""
        return self.from_coordinate(self.body.index)

    @cached_property
    def onset_position(self) -> Split | None:
        """From one absolute position on."""
        if self.positions is None:
            return None
        return self.from_coordinate(self.positions)

    @cached_property
    def exact_onset(self) -> tuple[int, float] | None:
        """The first absolute position at which any bit differs, and how surprising it is that none
        does before: -log (1 - f)^n nats, with f the fraction that differs after it and n the
        tokens before."""
        positions = self.positions
        differs = self.body.delta != 0.0
        if positions is None or not differs.any():
            return None
        at = int(positions[differs].min())
        earlier = positions < at
        if np.unique(positions[earlier]).size < PLACES_BEFORE_ONSET:
            return None
        # Responses to one prompt share their first contexts: only different values are draws.
        before = np.unique(self.body.rollout[earlier]).size
        fraction = float(differs[positions >= at].mean())
        return at, -before * float(np.log1p(-min(fraction, 0.999)))

    @cached_property
    def falling(self) -> Split | None:
        """Up to one response index; `at` is the last of the dirty ones, negative."""
        return self.from_coordinate(-self.body.index)

    @cached_property
    def best_gain(self) -> float:
        """The most that any place accounts for. Two free groups of sequences gain one unit per
        sequence by choosing alone."""
        fixed = (self.onset, self.onset_position, self.ends, self.falling, self.by_turn)
        gains = [found.gain for found in fixed if found is not None]
        if self.two_groups is not None:
            gains.append(self.two_groups.gain - self._sequences[0].size)
        return max(gains, default=0.0)

    @cached_property
    def dirty_runs(self) -> int:
        """Runs of neighbours in the dirtier group of sequences."""
        dirty = self.dirty_sequences[self._sequences[0]].astype(np.int8)
        return int((np.diff(np.concatenate([[0], dirty])) == 1).sum())

    @cached_property
    def ends(self) -> Split | None:
        """The last tokens of every sequence."""
        found = self.from_coordinate(-self.body.from_end)
        if found is None:
            return None
        return Split(
            found.dirty,
            found.gain,
            found.contrast,
            found.clean_sigma,
            found.dirty_sigma,
            -found.at,
        )

    @cached_property
    def onset_turn(self) -> Split | None:
        if self.signals.extras.turn_ids is None:
            return None
        return self.from_coordinate(self.signals.extras.turn_ids[self.body.token])

    @cached_property
    def by_turn(self) -> Split | None:
        """Turns in two groups, in any order."""
        turns = self.signals.extras.turn_ids
        if turns is None:
            return None
        return self.by_token_label(turns[self.body.token])

    def by_token_label(
        self, labels: NDArray[np.integer], at: float = 0.0, least: float = SMALLEST_GAIN
    ) -> Split | None:
        """[body] labels: the values in two groups, at the best cut of their means."""
        if self.body.tokens == 0:
            return None
        group = small_groups(labels)
        counts = np.bincount(group).astype(np.float64)
        present = np.flatnonzero(counts)
        means = np.bincount(group, self.body.size)[present] / counts[present]
        order = np.argsort(means, kind="stable")
        cut, _ = best_cut(counts[present][order], means[order])
        if cut is None:
            return None
        dirty = np.zeros(counts.size, np.bool_)
        dirty[present[order[cut:]]] = True
        return split_of(self.body, dirty[group], at, least)

    def from_coordinate(self, coordinate: NDArray[np.integer]) -> Split | None:
        """Tokens at or above the best cut are dirty; `at` is the cut."""
        if self.body.tokens < 2 * FEW_TOKENS:
            return None
        wide = coordinate.astype(np.int64)
        lowest = int(wide.min())
        shifted = np.minimum(wide - lowest, MAX_COORDINATE)
        counts = np.bincount(shifted).astype(np.float64)
        sums = np.bincount(shifted, self.body.size)
        present = np.flatnonzero(counts)
        cut, _ = best_cut(counts[present], sums[present] / counts[present])
        if cut is None:
            return None
        at = int(present[cut])
        return split_of(self.body, shifted >= at, float(at + lowest), SMALLEST_GAIN)

    @cached_property
    def own_onsets(self) -> tuple[Split, Ints] | None:
        """From a token of its own on in each dirty sequence; and those tokens, rows of the body."""
        return self._own_cuts(rising=True)

    @cached_property
    def own_falls(self) -> tuple[Split, Ints] | None:
        """Up to a token of its own in each dirty sequence, and the first cleaner ones."""
        return self._own_cuts(rising=False)

    def _own_cuts(self, *, rising: bool) -> tuple[Split, Ints] | None:
        """The cut of a sequence is where the mean log size before and after differs most."""
        body = self.body
        if body.tokens < 2 * FEW_TOKENS:
            return None
        starts = np.flatnonzero(np.concatenate([[True], body.sequence[1:] != body.sequence[:-1]]))
        lengths = np.diff(np.append(starts, body.tokens))
        running = np.cumsum(body.size) - body.size
        offset = np.repeat(running[starts], lengths)
        before = running - offset  # sum of the tokens of the sequence before this one
        k = np.arange(body.tokens) - np.repeat(starts, lengths)
        n = np.repeat(lengths, lengths)
        total = np.repeat(np.add.reduceat(body.size, starts), lengths)
        with np.errstate(divide="ignore", invalid="ignore"):
            rise = (total - before) / (n - k) - before / k
            if not rising:
                rise = -rise
            gain = np.where((k >= 2) & (n - k >= 2), k * (n - k) / n * rise * np.abs(rise), -np.inf)
        best = np.maximum.reduceat(gain, starts)
        cut = np.flatnonzero(gain == np.repeat(best, lengths))
        cut = cut[np.unique(body.sequence[cut], return_index=True)[1]]
        significant = cut[gain[cut] / self.variance > 16.0]
        if significant.size == 0:
            return None
        first = np.full(self.signals.tokens.sequences, body.tokens if rising else -1, np.int64)
        first[body.sequence[significant]] = significant
        rows = np.arange(body.tokens)
        dirty = rows >= first[body.sequence] if rising else rows < first[body.sequence]
        found = split_of(body, dirty, 0.0, SMALLEST_GAIN)
        return None if found is None else (found, significant)

    # Single tokens --------------------------------------------------------------------------

    @cached_property
    def wild(self) -> Bools:
        """[body] tokens far outside what the others do."""
        body = self.body
        scale = max(typical(body.residual[body.certainty < 0.99]), self.signals.floor.sigma * 0.25)
        return (np.abs(body.residual) > WILD * scale) & (np.abs(body.delta) > scale)

    @cached_property
    def adjacency(self) -> tuple[float, float]:
        """P(the next token is wild | this one is), and P(wild)."""
        wild, sequence = self.wild, self.body.sequence
        if wild.size < 2 or not wild.any():
            return 0.0, 0.0
        same = sequence[1:] == sequence[:-1]
        pairs = wild[:-1] & same
        if not pairs.any():
            return 0.0, float(wild.mean())
        return float(wild[1:][pairs].mean()), float(wild.mean())

    @cached_property
    def wild_structure(self) -> float:
        """How far wild tokens are from lying anywhere: the largest excess over chance, in standard
        errors, of their share among last tokens, first tokens and the worst tenth of sequences."""
        body, wild = self.body, self.wild
        count = int(wild.sum())
        if count < 3:
            return 0.0
        found = 0.0
        for part in (body.from_end <= 2, body.index <= 1):
            chance = float(np.clip(part.mean(), 1e-3, 0.999))
            share = float(part[wild].mean())
            found = max(found, (share - chance) / np.sqrt(chance * (1 - chance) / count))
        per_sequence = np.bincount(body.sequence[wild], minlength=self.signals.tokens.sequences)
        expected = np.bincount(body.sequence, minlength=per_sequence.size) * count / body.tokens
        likely = expected > 0
        spread = float(np.sum((per_sequence - expected)[likely] ** 2 / expected[likely]))
        freedom = max(1, int(likely.sum()) - 1)
        crowded = (spread - freedom) / float(np.sqrt(2 * freedom)) / 3.0
        return max(float(found), crowded)
