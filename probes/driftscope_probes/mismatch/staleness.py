"""What optional arrays add: mismatch against entropy, and against the age of the policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from driftscope_probes.mismatch.number import (
    NO_TOKENS,
    FloatArray,
    IntArray,
    Number,
    Undefined,
    finite,
    mean,
)
from driftscope_probes.mismatch.sums import SequenceSums
from driftscope_probes.mismatch.token_differences import TokenDifferences, token_differences
from driftscope_probes.tokens import Tokens

NOT_POSITIVE = Undefined("the mean entropy is not above 0")


@dataclass(frozen=True, slots=True)
class MismatchEntropy:
    entropy_mean: Number
    kl_k3_entropy_ratio: Number  # mean k3 over mean entropy (prime-rl kl_ent_ratio)


def mismatch_entropy(entropy: FloatArray, kl_k3: Number) -> MismatchEntropy:
    """entropy: [kept] nats; a NaN or infinity among them leaves both numbers undefined."""
    entropy_mean = mean(entropy)
    return MismatchEntropy(
        entropy_mean=entropy_mean, kl_k3_entropy_ratio=_quotient(kl_k3, entropy_mean)
    )


def _quotient(above: Number, below: Number) -> Number:
    if isinstance(below, Undefined):
        return below
    if isinstance(above, Undefined):
        return above
    return finite(above / below) if below > 0 else NOT_POSITIVE


@dataclass(frozen=True, slots=True, eq=False)
class LagBuckets:
    """Token means; a mean that overflows is not finite here and null in JSON."""

    lag: IntArray  # [buckets] train steps, rising
    sequences: IntArray  # [buckets]
    tokens: IntArray  # [buckets]
    abs_diff_mean: FloatArray  # [buckets] nats
    diff_mean: FloatArray  # [buckets] nats
    kl_k3: FloatArray  # [buckets] nats

    def to_dict(self) -> dict[str, Any]:
        return {
            "lag": self.lag.tolist(),
            "sequences": self.sequences.tolist(),
            "tokens": self.tokens.tolist(),
            "abs_diff_mean": _json_numbers(self.abs_diff_mean),
            "diff_mean": _json_numbers(self.diff_mean),
            "kl_k3": _json_numbers(self.kl_k3),
        }


def lag_buckets(sums: SequenceSums, lag: IntArray) -> LagBuckets:
    """lag: [sequences given]; sequences without tokens are in no bucket."""
    values, bucket = np.unique(lag[sums.sequence_index], return_inverse=True)
    tokens = np.bincount(bucket, sums.length, minlength=values.size)
    with np.errstate(over="ignore", invalid="ignore"):
        return LagBuckets(
            lag=values,
            sequences=np.bincount(bucket, minlength=values.size),
            tokens=tokens.astype(np.int64),
            abs_diff_mean=np.bincount(bucket, sums.abs_diff, minlength=values.size) / tokens,
            diff_mean=np.bincount(bucket, sums.diff, minlength=values.size) / tokens,
            kl_k3=np.bincount(bucket, sums.kl_k3, minlength=values.size) / tokens,
        )


def token_lag_buckets(differences: TokenDifferences, lag: IntArray) -> LagBuckets:
    """As lag_buckets() for versions that change within a sequence. lag: [tokens].

    A sequence counts in every bucket that holds a token of it."""
    values, bucket = np.unique(differences.kept(lag), return_inverse=True)
    tokens = np.bincount(bucket, minlength=values.size)
    of_token = np.repeat(np.arange(differences.length.size), differences.length)
    held = np.unique(bucket * max(1, differences.length.size) + of_token)
    with np.errstate(over="ignore", invalid="ignore"):
        kl_k3 = np.expm1(differences.diff) - differences.diff
        return LagBuckets(
            lag=values,
            sequences=np.bincount(held // max(1, differences.length.size), minlength=values.size),
            tokens=tokens,
            abs_diff_mean=np.bincount(bucket, differences.abs_diff, values.size) / tokens,
            diff_mean=np.bincount(bucket, differences.diff, values.size) / tokens,
            kl_k3=np.bincount(bucket, kl_k3, values.size) / tokens,
        )


def lag_buckets_of(tokens: Tokens, sums: SequenceSums) -> LagBuckets | None:
    """By the version of each token where it is known, or else of each sequence; None: of neither.

    Raises TraceError where versions give no lag."""
    by_token = tokens.token_lag()
    if by_token is not None:
        return token_lag_buckets(token_differences(tokens), by_token)
    by_sequence = tokens.extras.lag()
    return None if by_sequence is None else lag_buckets(sums, by_sequence)


def _json_numbers(values: FloatArray) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values.tolist()]


NOTHING_FRESH = Undefined("no token was rolled out by the current weights: there is no floor")
NOTHING_STALE = Undefined("every token was rolled out by the current weights")
NO_DIFFERENCE = Undefined("the stale tokens show no difference at all")


@dataclass(frozen=True, slots=True)
class Staleness:
    """As martingale 0.2.0: floor = mean |Δ| at lag 0,
    share = Σ max(0, mean |Δ| at the lag − floor) · tokens / Σ mean |Δ| at the lag · tokens,
    both sums over the lags above 0.
    """

    lag_mean: Number  # over tokens, train steps
    lag_max: int | Undefined
    stale_token_share: Number  # fraction of tokens with lag above 0
    lag0_abs_diff_mean: Number  # the floor, nats
    staleness_share: Number


def staleness(buckets: LagBuckets) -> Staleness:
    if not buckets.lag.size:
        return Staleness(NO_TOKENS, NO_TOKENS, NO_TOKENS, NO_TOKENS, NO_TOKENS)
    total = int(buckets.tokens.sum())
    floor: Number = NOTHING_FRESH
    if buckets.lag[0] == 0:
        floor = finite(buckets.abs_diff_mean[0])
    return Staleness(
        lag_mean=float(np.dot(buckets.lag, buckets.tokens)) / total,
        lag_max=int(buckets.lag[-1]),
        stale_token_share=int(buckets.tokens[buckets.lag > 0].sum()) / total,
        lag0_abs_diff_mean=floor,
        staleness_share=_share(buckets, floor),
    )


def _share(buckets: LagBuckets, floor: Number) -> Number:
    stale = buckets.lag > 0
    if not stale.any():
        return NOTHING_STALE
    if isinstance(floor, Undefined):
        return floor
    means, tokens = buckets.abs_diff_mean[stale], buckets.tokens[stale]
    with np.errstate(over="ignore", invalid="ignore"):
        whole = float(np.dot(means, tokens))
        above = float(np.dot(np.maximum(means - floor, 0.0), tokens))
    return finite(above / whole) if whole else NO_DIFFERENCE
