"""Counted tokens: what took part, equal bits, and confident disagreements."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.fused.layouts import COUNTS, TokenPass
from driftscope_probes.mismatch.number import NO_TOKENS, IntArray, Number, Undefined
from driftscope_probes.tokens import Tokens


@dataclass(frozen=True, slots=True)
class TokenCounts:
    tokens: int
    ratio_above_wide: int
    ratio_below_wide: int
    ratio_outside_narrow: int
    ratio_outside_ppo: int
    extreme_diff: int
    confident_disagreements: int
    chi2_saturated: int

    def share(self, count: int) -> Number:
        return count / self.tokens if self.tokens else NO_TOKENS

    def merged(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(
            **{
                field.name: getattr(self, field.name) + getattr(other, field.name)
                for field in dataclasses.fields(self)
            }
        )


def token_counts(found: TokenPass) -> TokenCounts:
    return TokenCounts(
        tokens=int(found.rows["kept"].sum()),
        **{name: int(found.counts[name][0]) for name in COUNTS.names or ()},
    )


@dataclass(frozen=True, slots=True)
class Hygiene:
    """Counts of tokens, unmasked unless noted otherwise.

    An exact zero is a certain token where the other side is about 0 as well, and else a placeholder
    of an engine that returned nothing (`zero_unmatched`); a positive log-probability is invalid,
    and so is a sentinel. All of them stay in the statistics.
    """

    tokens: int  # in the statistics
    sequences: int  # with at least one such token
    masked_tokens: int
    nonfinite_tokens: int  # left out: a side is NaN or infinite, or Δ overflows
    nonfinite_sequences: int  # with at least one token left out for that
    empty_sequences: int  # without any token in the statistics
    rollout_nonfinite: int
    trainer_nonfinite: int
    rollout_zero: int  # exactly 0.0 or -0.0
    trainer_zero: int
    rollout_positive: int  # finite and above 0
    trainer_positive: int
    rollout_nan: int
    trainer_nan: int
    rollout_minus_infinity: int
    trainer_minus_infinity: int
    rollout_plus_infinity: int
    trainer_plus_infinity: int
    rollout_sentinel: int  # finite, at SENTINEL_AT_MOST or below: no sampled token is as rare
    trainer_sentinel: int
    rollout_zero_unmatched: int  # exactly 0 while the trainer is below ABOUT_ZERO
    trainer_zero_unmatched: int
    rollout_highest: float  # nats above 0, of finite values; 0: none is
    trainer_highest: float

    def merged(self, other: Hygiene) -> Hygiene:
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in self.__slots__)
        return Hygiene(
            **{
                name: max(one, two) if name.endswith("_highest") else one + two
                for name, one, two in pairs
            }
        )


SIDES = ("rollout", "trainer")
#: Names that Hygiene and the oddities of the compiled pass share.
_COUNTED = tuple(
    f"{side}_{what}"
    for what in (
        *("nonfinite", "zero", "positive", "nan", "minus_infinity", "plus_infinity"),
        *("sentinel", "zero_unmatched"),
    )
    for side in SIDES
)


def hygiene(tokens: Tokens, found: TokenPass) -> Hygiene:
    kept, unmasked = found.rows["kept"], found.rows["unmasked"]
    all_kept, all_unmasked = int(kept.sum()), int(unmasked.sum())
    sequences = int(np.count_nonzero(kept))
    odd = found.oddities
    highest = (float(odd[f"{side}_highest_bits"].view(np.float64)[0]) for side in SIDES)
    return Hygiene(
        tokens=all_kept,
        sequences=sequences,
        masked_tokens=tokens.rollout.size - all_unmasked,
        nonfinite_tokens=all_unmasked - all_kept,
        nonfinite_sequences=int(np.count_nonzero(unmasked > kept)),
        empty_sequences=kept.size - sequences,
        rollout_highest=next(highest),
        trainer_highest=next(highest),
        **{name: int(odd[name][0]) for name in _COUNTED},
    )


def unmasked_lengths(tokens: Tokens) -> IntArray:
    """[sequences given] unmasked tokens of each sequence."""
    if tokens.mask is None:
        return np.diff(tokens.cu_seqlens)
    return np.diff(np.searchsorted(np.flatnonzero(tokens.mask), tokens.cu_seqlens))


ALL_MASKED = Undefined("every token is masked")
NONE_DIFFERS = Undefined("no token differs")


@dataclass(frozen=True, slots=True)
class Bitwise:
    """Over all unmasked tokens, the non-finite ones too: a NaN on one side is a difference.

    Unequal dtypes meet in float64, which is exact. 0.0 and -0.0 differ; two NaNs of the same bits
    are equal. Indices count from 0 within the response, masked tokens included.
    """

    bitwise_equal_fraction: Number  # of tokens
    bitwise_equal_sequences: int  # all their unmasked tokens are equal, and they have one
    bitwise_equal_sequence_fraction: Number  # of the sequences with an unmasked token
    first_differing_token: int | Undefined  # smallest first index over the sequences
    first_differing_token_median: Number  # over the sequences that differ


@dataclass(frozen=True, slots=True, eq=False)
class DifferingTokens:
    """What the numbers above are made of; adding two gives those of both sets of sequences."""

    tokens: int  # unmasked
    sequences: int  # with an unmasked token
    differing: int  # tokens
    first: IntArray  # [sequences that differ] first differing index of each

    def merged(self, other: DifferingTokens) -> DifferingTokens:
        return DifferingTokens(
            tokens=self.tokens + other.tokens,
            sequences=self.sequences + other.sequences,
            differing=self.differing + other.differing,
            first=np.concatenate([self.first, other.first]),
        )


def bitwise(found: DifferingTokens) -> Bitwise:
    tokens, sequences, first = found.tokens, found.sequences, found.first
    equal_sequences = sequences - first.size
    return Bitwise(
        bitwise_equal_fraction=(tokens - found.differing) / tokens if tokens else ALL_MASKED,
        bitwise_equal_sequences=equal_sequences,
        bitwise_equal_sequence_fraction=equal_sequences / sequences if tokens else ALL_MASKED,
        first_differing_token=int(first.min()) if first.size else NONE_DIFFERS,
        first_differing_token_median=float(np.median(first)) if first.size else NONE_DIFFERS,
    )


def differing_tokens(found: TokenPass) -> DifferingTokens:
    first = found.rows["first_differing"]
    return DifferingTokens(
        tokens=int(found.oddities["unmasked"][0]),
        sequences=int(np.count_nonzero(found.rows["unmasked"])),
        differing=int(found.oddities["differing"][0]),
        first=first[first >= 0],
    )


@dataclass(frozen=True, slots=True)
class PositionOnset:
    """Absolute positions of the tokens at which the bits of a sequence first differ."""

    first_differing_position: int | Undefined  # smallest over the sequences
    first_differing_position_median: Number
    first_differing_position_max: int | Undefined


def position_onset(tokens: Tokens, found: TokenPass) -> PositionOnset | None:
    """None where no position_ids were given."""
    if tokens.extras.position_ids is None:
        return None
    first = found.rows["first_differing"]
    differ = first >= 0
    if not differ.any():
        return PositionOnset(NONE_DIFFERS, NONE_DIFFERS, NONE_DIFFERS)
    at = tokens.extras.position_ids[tokens.cu_seqlens[:-1][differ] + first[differ]]
    return PositionOnset(int(at.min()), float(np.median(at)), int(at.max()))


@dataclass(frozen=True, slots=True)
class ConfidentDisagreement:
    """logp_rollout > −0.7 and Δ < −2 (martingale 0.2.0, which treats one such token as an error).

    Rounding does not do this: such tokens point to other weights, other text or a wrong mask.
    """

    confident_disagreements: int
    confident_disagreement_share: Number  # of tokens


def confident_disagreement(counts: TokenCounts) -> ConfidentDisagreement:
    found = counts.confident_disagreements
    return ConfidentDisagreement(
        confident_disagreements=found,
        confident_disagreement_share=counts.share(found),
    )
