"""The kinds of difference between two ways to compute an op. Free of torch: pages say them too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

#: `input_only`: the op is the same on both sides, and differs because what it is given does.
Reason = Literal[
    "dtype",
    "rounding_point",
    "reduction_order",
    "primitive",
    "weight",
    "formula",
    "mask",
    "position",
    "cache",
    "randomness",
    "input_only",
    "unknown",
]
REASONS: Final[Mapping[Reason, str]] = {
    "dtype": "another dtype",
    "rounding_point": "another rounding point",
    "reduction_order": "another order of additions",
    "primitive": "another primitive (exp, rsqrt, fused multiply-add)",
    "weight": "other weights",
    "formula": "another formula or constant",
    "mask": "another mask",
    "position": "other positions or angles",
    "cache": "another key-value cache",
    "randomness": "random numbers on one side",
    "input_only": "other inputs only",
    "unknown": "no variant equals it",
}
#: What rounding alone does. Everything else but `input_only` and `unknown` is a fault.
ROUNDING: Final[frozenset[Reason]] = frozenset(
    {"dtype", "rounding_point", "reduction_order", "primitive"}
)
