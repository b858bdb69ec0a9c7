"""Examination: everything that a detector may ask about one step.

In: Observed and a floor. Out: signals, places, relation, settings, and what several detectors
conclude from them.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from driftscope_probes.diagnosis.body import FEW_TOKENS, Ints, typical
from driftscope_probes.diagnosis.cause import Evidence
from driftscope_probes.diagnosis.floor import AT_FLOOR_UP_TO, Floor
from driftscope_probes.diagnosis.observed import Observed
from driftscope_probes.diagnosis.places import Places
from driftscope_probes.diagnosis.relation import Relation, correlation
from driftscope_probes.diagnosis.settings import Settings, settings_of
from driftscope_probes.diagnosis.signals import Signals
from driftscope_probes.diagnosis.split import Split

#: Healthy pairs: 0.05 to 0.10 in every dtype and model; above this, tokens moved that the engine
#: was sure of.
SURE_RATIO_OF_ROUNDING = 0.3
#: Healthy pairs: E[ρ] within 1.4 standard errors of 1 in 80 %; four are 6e-5 of a normal variable.
RATIO_ERRORS_OF_ROUNDING = 4.0
#: Healthy pairs: 4 to 30.
KURTOSIS_OF_ROUNDING = 80.0
#: Healthy pairs: 0.5 to 1.4 for Δ; contexts differ in hardness, so means of its size vary more.
SEQUENCE_EFFECT_OF_ROUNDING = 3.0
#: The noisiest healthy model that was published, pythia-160m, is at 23 to 29 times the prior in
#: every dtype: beyond this a shape of rounding does not make it rounding.
LARGEST_HEALTHY_EXCESS = 40.0
#: A part this much noisier, e^1.2 = 3.3 times, by a gain that no search over cuts makes by chance.
STRUCTURE, STRUCTURE_GAIN = 1.2, 60.0
#: Correlation of sixteen bins with their order, and how much noisier the last sixth is.
GROWING, RISE = 0.9, 3.0
#: As many values that look like placeholders are no accident.
FEW_PLACEHOLDERS = 4
#: Nats of surprise that not one bit differs before a position: e^-12 by chance, and beyond doubt.
SURPRISE_OF_ONSET = (12.0, 25.0)
#: P(the next token is wild too) over that of any token, for tokens that have nothing to do with
#: each other; and standard errors of where they lie.
ISOLATED_BELOW, STRUCTURE_OF_CHANCE = 0.2, 5.0
#: A part is dirty when it differs this many times as much as the rest: e^0.7 = 2.
CONTRAST = 0.7


#: Measured fractions of the weights in ΣΔ² between which they begin to be what is seen.
WEIGHTS_FROM, WEIGHTS_UP_TO = 0.3, 0.6
#: Not 1: how the weights came to differ is not measured.
MEASURED_AT_MOST = 0.95


class Examination:
    def __init__(self, observed: Observed, floor: Floor) -> None:
        self.observed = observed
        self.floor = floor
        self.signals = Signals(observed, floor)

    @cached_property
    def settings(self) -> Settings:
        return settings_of(self.observed.metadata)

    @cached_property
    def measured_weights(self) -> float:
        """Where a probe scored with both sides' weights: how surely these are what is seen."""
        fraction = self.settings.weights_fraction
        if fraction is None:
            return 0.0
        surely = ramp(fraction, WEIGHTS_FROM, WEIGHTS_UP_TO)
        return MEASURED_AT_MOST * surely * ramp(self.signals.excess or 0.0, 1.4, 2.2)

    @cached_property
    def places(self) -> Places:
        return Places(self.signals)

    @cached_property
    def relation(self) -> Relation:
        return Relation(self.signals)

    # The shape of rounding ------------------------------------------------------------------

    @cached_property
    def shape_faults(self) -> tuple[Evidence, ...]:
        """What is not as rounding leaves it, over the whole body."""
        signals, found = self.signals, []
        if self.places.body.tokens == 0:
            return ()  # certain everywhere: nothing could have a shape
        ratio, distance = signals.mean_ratio
        least = max(0.002, 0.1 * signals.grain)
        if abs(distance) > RATIO_ERRORS_OF_ROUNDING and abs(ratio - 1) > least:
            found.append(Evidence("mean ratio ρ", round(ratio, 4), "1 within 4 standard errors"))
        sure = signals.sure_ratio
        if sure is not None and sure > SURE_RATIO_OF_ROUNDING:
            found.append(
                Evidence("|Δ| at p > 0.9 over that at p < 0.5", round(sure, 3), "0.05 to 0.10")
            )
        effect = signals.sequence_effect
        if effect is not None and effect > SEQUENCE_EFFECT_OF_ROUNDING:
            found.append(
                Evidence("variance of sequence means over noise", round(effect, 2), "0.5 to 1.4")
            )
        kurtosis = signals.kurtosis
        if kurtosis is not None and kurtosis > KURTOSIS_OF_ROUNDING:
            found.append(Evidence("kurtosis of residuals", round(kurtosis, 1), "4 to 30"))
        found += self._structure
        positive = signals.fraction_positive
        if not 0.2 <= positive <= 0.7:
            found.append(Evidence("fraction of Δ above 0", round(positive, 3), "0.35 to 0.5"))
        return tuple(found)

    @cached_property
    def _structure(self) -> tuple[Evidence, ...]:
        """Over position, turn, end and sequences: rounding has none."""
        places = self.places
        for what, split in (
            ("from one absolute position on", places.onset_position),
            ("from one response index on", places.onset),
            ("in the last tokens", places.ends),
            ("in some turns", places.by_turn),
            ("in some sequences", places.two_groups if self.two_kinds > 0.5 else None),
        ):
            if split is None or split.contrast < STRUCTURE or split.gain < STRUCTURE_GAIN:
                continue
            if split.dirty_sigma > AT_FLOOR_UP_TO * self.floor.sigma:
                times = round(float(np.exp(split.contrast)), 1)
                return (Evidence(f"noise {what} over the rest", times, "1"),)
        by_index, by_position = self.growth
        if max(by_index, by_position) > GROWING and self.rise > RISE:
            return (Evidence("noise of the last sixth over the first", round(self.rise, 1), "1"),)
        return ()

    @cached_property
    def rise(self) -> float:
        """Noise in the last sixth of the positions (or indices) over that in the first."""
        body, positions = self.places.body, self.places.positions
        coordinate = body.index if positions is None else positions
        if body.tokens < 96:
            return 1.0
        parts = np.array_split(body.residual[np.argsort(coordinate, kind="stable")], 6)
        return typical(parts[-1]) / max(typical(parts[0]), 1e-12)

    @cached_property
    def rounding_shape(self) -> bool:
        return not self.shape_faults and (self.signals.excess or 0.0) <= LARGEST_HEALTHY_EXCESS

    @cached_property
    def unclean(self) -> bool:
        """Values that no distribution gives are no rounding, whatever the others do."""
        impossible = self.signals.impossible
        never = (
            impossible.rollout.nonfinite,
            impossible.trainer.nonfinite,
            impossible.rollout.sentinel,
            impossible.trainer.sentinel,
        )
        # One token may be certain on one side and not on the other, where its experts flipped.
        seldom = (impossible.placeholder, impossible.rollout.repeated)
        above = (impossible.rollout.positive, impossible.trainer.positive)
        return (
            any(rows.size for rows in never)
            or sum(rows.size for rows in seldom) >= FEW_PLACEHOLDERS
            or sum(rows.size for rows in above) >= FEW_TOKENS
        )

    @cached_property
    def tail_only(self) -> bool:
        """Single wild tokens anywhere, all others at the floor: flips of near ties, as mixtures of
        experts have them in health, rather than a fault of the whole."""
        after, base = self.places.adjacency
        return (
            self.moved <= AT_FLOOR_UP_TO
            and after - base < ISOLATED_BELOW
            and self.places.wild_structure < STRUCTURE_OF_CHANCE
        )

    # Where ----------------------------------------------------------------------------------

    def accounts(self, found: Split | None) -> float:
        """Fraction of the difference between two groups of sequences that a split explains."""
        best = self.places.two_groups
        if found is None:
            return 0.0
        if best is None:
            return 1.0
        return min(1.0, found.gain / best.gain)

    @cached_property
    def labelled(self) -> float:
        """How much of the difference between sequences a label that was pushed accounts for."""
        extras = self.signals.extras
        lag = self.signals.tokens.lag()
        labels = [extras.rank, extras.replica, extras.environment]
        if extras.cached_tokens is not None:
            labels.append((extras.cached_tokens > 0).astype(np.int64))
        if lag is not None:
            labels.append((lag > 0).astype(np.int64))
        splits = [self.places.by_label(values) for values in labels if values is not None]
        return max((self.accounts(found) for found in splits if found is not None), default=0.0)

    @cached_property
    def environments(self) -> Evidence | None:
        """Those whose sequences alone differ."""
        labels = self.signals.extras.environment
        split = None if labels is None else self.places.by_label(labels)
        if (
            labels is None
            or split is None
            or self.accounts(split) < 0.6
            or split.contrast < CONTRAST
        ):
            return None
        numbers = np.unique(labels[np.unique(self.places.body.sequence[split.dirty])])
        names = self.observed.metadata.get("environments", "").split(",")
        told = [
            names[number].strip() if number < len(names) and names[number] else str(number)
            for number in numbers
        ]
        return Evidence("environments whose sequences differ", ", ".join(told), "none")

    @cached_property
    def unlabelled(self) -> float:
        """1 where no pushed label accounts for which sequences differ, so that order may."""
        return ramp(self.labelled, 0.75, 0.4)

    def leads(self, found: Split) -> float:
        """1 where no other place accounts for more of the difference."""
        return ramp(found.gain / max(self.places.best_gain, 1e-9), 0.6, 0.9)

    def clean(self, found: Split) -> float:
        """1 where the rest of a split is at the floor; a prior may be off by a factor of two."""
        most, least = (3.5, 1.5) if self.floor.source == "calibrated" else (5.0, 2.0)
        return ramp(found.clean_sigma / self.floor.sigma, most, least)

    @cached_property
    def two_kinds(self) -> float:
        """1 where sequences fall into two kinds rather than along one spread: their best cut
        explains 64 % of the variance of a normal variable, 75 % of a uniform one."""
        return ramp(self.places.two_kinds, 0.68, 0.85)

    @cached_property
    def same_token(self) -> float:
        """0 where the values of the dirtier part do not speak of the same token at all."""
        body = self.places.body
        split = self.places.two_groups
        rows = np.ones(body.tokens, np.bool_) if split is None else split.dirty
        if rows.sum() < 16:
            return 1.0
        rollout, trainer = np.maximum(body.rollout[rows], -30), np.maximum(body.trainer[rows], -30)
        return ramp(correlation(rollout, trainer), 0.15, 0.4)

    @cached_property
    def localised(self) -> float:
        """1 where one part of the step is far off and the rest is at the floor: no fault of what
        the sides mean by a log-probability, for that would act everywhere."""
        places = self.places
        splits = (places.onset, places.onset_position, places.ends, places.two_groups)
        exact = places.exact_onset
        return max(
            0.0 if exact is None else ramp(exact[1], *SURPRISE_OF_ONSET),
            max(
                (
                    ramp(found.contrast, 1.2, 2.2) * self.clean(found)
                    for found in splits
                    if found is not None
                ),
                default=0.0,
            ),
        )

    @cached_property
    def same_everywhere(self) -> float:
        """1 where no part of the step stands out: a fault of the whole function."""
        splits = (
            self.places.two_groups,
            self.places.onset,
            self.places.onset_position,
            self.places.ends,
        )
        contrasts = [found.contrast for found in splits if found is not None]
        return ramp(max(contrasts, default=0.0), 2.0, 1.0)

    @cached_property
    def moved(self) -> float:
        """Typical noise on the logits over the floor, wild tokens left out; 0 without tokens."""
        return self.signals.typical_excess or 0.0

    @cached_property
    def stepwise(self) -> float:
        """1 where one jump along the sequence, at a turn or a position, explains more than a slow
        rise in sixteen parts does."""
        body, places = self.places.body, self.places
        jumps = (places.onset, places.onset_position, places.onset_turn, places.by_turn)
        best = max((found.gain for found in jumps if found is not None), default=0.0)
        coordinate = body.index if places.positions is None else places.positions
        if best == 0.0 or body.tokens < 64:
            return 0.0
        parts = np.array_split(body.size[np.argsort(coordinate, kind="stable")], 16)
        centre = float(body.size.mean())
        rise = sum(part.size * (float(part.mean()) - centre) ** 2 for part in parts)
        within = sum(float(np.sum((part - part.mean()) ** 2)) for part in parts) / body.tokens
        return ramp(best / max(rise / max(within, 0.1), 1e-9), 0.85, 1.0)

    def flat_after(self, split: Split, coordinate: Ints) -> float:
        """1 where the dirty part stays at one level, 0 where it goes on rising with a coordinate:
        a jump is a border, a rise is a distance."""
        rows = np.flatnonzero(split.dirty)
        if rows.size < 48:
            return 1.0
        order = rows[np.argsort(coordinate[rows], kind="stable")]
        first, _, last = np.array_split(self.places.body.size[order], 3)
        return ramp(float(last.mean() - first.mean()), 0.6, 0.25)

    @cached_property
    def growth(self) -> tuple[float, float]:
        """Rank correlation of log |residual| with the index in the response; and with the absolute
        position (0 where unknown)."""
        body, positions = self.places.body, self.places.positions
        return (
            binned_correlation(body.index, body.size),
            0.0 if positions is None else binned_correlation(positions, body.size),
        )


def ramp(value: float, low: float, high: float) -> float:
    """0 at `low`, 1 at `high`, linear between; falls where low > high."""
    return float(np.clip((value - low) / (high - low), 0.0, 1.0))


def binned_correlation(coordinate: np.ndarray, values: np.ndarray, bins: int = 16) -> float:
    """Correlation between bins of equal counts: noise within them averages out."""
    if values.size < 8 * bins:
        return 0.0
    order = np.argsort(coordinate, kind="stable")
    means = np.array([part.mean() for part in np.array_split(values[order], bins)])
    if np.ptp(means) == 0:
        return 0.0
    return float(np.corrcoef(np.arange(bins), means)[0, 1])
