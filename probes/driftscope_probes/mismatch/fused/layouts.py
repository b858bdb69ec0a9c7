"""Layouts of what the fused pass reads, writes and returns, for compiled code and for Python.

Nothing here needs numba, so that importing a comparison does not load it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.mismatch.number import BoolArray, FloatArray, IntArray, LogprobArray
from driftscope_probes.tokens import Tokens

MANTISSA_BITS = 52  # IEEE 754 binary64
EXPONENT_BIAS = 1023
BITS_OF_INFINITY = 0x7FF0000000000000

# 64 fine buckets an octave, each about 1.1 % wide: a quantile's bucket holds about one token in a
# hundred. Whole numbers up to 64 have a bucket each.
BITS_IN_BUCKET = 6
SHIFT = MANTISSA_BITS - BITS_IN_BUCKET
BUCKETS = (0x7FF << BITS_IN_BUCKET) + 1  # all finite numbers; bucket 0 is exactly 0

# Tokens. Eleven arrays of 4 KiB: beside the two inputs, what one loop leaves for the next. Shorter
# blocks spend more on adding up the lanes at their end, longer ones drift from the first cache.
BLOCK = 512


def _columns(kind: type, *names: str) -> np.dtype[Any]:
    return np.dtype([(name, kind) for name in names])


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

# One row per sequence; names as in SequenceSums and DivergenceSums.
SUMS = _columns(
    np.float64,
    "diff",
    "abs_diff",
    "square",  # ΣΔ²
    "kl_k3",
    "kl_reverse_k3",
    "ratio",
    "ratio_abs_dev",
    "ratio_diff",
    "truncated_ratio",
    "truncated_ratio_square",
    "mult_error",
    "double_js",
    "chi2",
    "rollout_logprob",
    "trainer_logprob",
    "prob_abs_diff",
    "prob_diff",
    "binary_kl",
    "rollout_prob",  # less the anchor
    "trainer_prob",  # less the anchor
)

# Σ (x − mean of the sequence)²; the last one Σ (x − its mean)(y − its mean).
SPREAD = _columns(
    np.float64,
    "diff",
    "ratio",
    "prob_abs_diff",
    "rollout_prob",
    "trainer_prob",
    "prob_product",
)

# Of the whole batch; names as in TokenCounts.
COUNTS = _columns(
    np.int64,
    "ratio_above_wide",
    "ratio_below_wide",
    "ratio_outside_narrow",
    "ratio_outside_ppo",
    "extreme_diff",
    "confident_disagreements",
    "chi2_saturated",
)

# Of the whole batch, as bits: for numbers from 0 on those rise with the number, and NaN, an
# overflow on both sides of a token, is above all.
EXTREMES = _columns(
    np.int64,
    "ratio_max",
    "ratio_min",
    "prob_abs_diff_max",
    "binary_kl_max",
    "abs_diff_max",
    "ulp_distance_max",
)

# Of the whole batch, of unmasked tokens.
ODDITIES = _columns(
    np.int64,
    "unmasked",
    "differing",
    "rollout_nonfinite",
    "trainer_nonfinite",
    "rollout_zero",
    "trainer_zero",
    "rollout_positive",
    "trainer_positive",
    "rollout_nan",
    "trainer_nan",
    "rollout_minus_infinity",
    "trainer_minus_infinity",
    "rollout_plus_infinity",
    "trainer_plus_infinity",
    "rollout_sentinel",
    "trainer_sentinel",
    "rollout_zero_unmatched",
    "trainer_zero_unmatched",
    "rollout_highest_bits",  # of the highest finite value above 0; 0: there is none
    "trainer_highest_bits",
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


class Scratch(NamedTuple):
    """What the loops over one block hand on; each [BLOCK] float64."""

    rollout: FloatArray  # nats
    trainer: FloatArray  # nats
    abs_diff: FloatArray  # nats
    ulp_distance: FloatArray
    ratio: FloatArray
    shrink: FloatArray
    shortfall: FloatArray
    kl_k3: FloatArray
    rollout_prob: FloatArray  # less the anchor
    trainer_prob: FloatArray  # less the anchor
    prob_abs_diff: FloatArray


def new_scratch() -> Scratch:
    return Scratch(*np.zeros((len(Scratch._fields), BLOCK)))


Buckets = NDArray[np.uint32]  # [2, BLOCK] of |Δ| and of the ULP distance


def new_buckets() -> Buckets:
    return np.zeros((2, BLOCK), np.uint32)


Wanted = NDArray[np.uint32]  # buckets, in rising order

# Eight bytes are looked at together: hardly one token in a hundred is wanted.
Marks = NDArray[np.bool_]  # [BLOCK] wanted tokens
MarkGroups = NDArray[np.uint64]  # the same memory
MARKS_IN_GROUP = 8


def new_marks() -> tuple[Marks, MarkGroups]:
    groups = np.zeros(BLOCK // MARKS_IN_GROUP, np.uint64)
    return groups.view(np.bool_), groups


class Workspace(NamedTuple):
    scratch: Scratch
    buckets: Buckets
    block: NDArray[Any]  # [1] SUMS of one block
    block_columns: FloatArray  # [1, columns], the same memory
    sum_columns: FloatArray  # [sequences given, columns], the memory of TokenPass.sums


def new_workspace(found: TokenPass) -> Workspace:
    block = np.zeros(1, SUMS)
    return Workspace(
        new_scratch(), new_buckets(), block, _as_columns(block), _as_columns(found.sums)
    )


def _as_columns(rows: NDArray[Any]) -> FloatArray:
    return rows.view(np.float64).reshape(rows.size, len(SUMS.names or ()))


def as_compiled(pair: Tokens) -> tuple[LogprobArray, LogprobArray, BoolArray]:
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
