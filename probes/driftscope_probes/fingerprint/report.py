"""The report of a fingerprint: every path by itself, functions, and what they ran on.

Free of torch. Nothing in it says when it was made or how long that took: two readings of one
machine are the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from driftscope_probes.record import Record

#: A report is stored, compared and mailed.
MOST_BYTES: Final = 200_000
#: Of a tree as text; its hash is of all of it.
MOST_TREE: Final = 600
HASH_DIGITS: Final = 16


class PathReading(Record):
    """One way to sum products. None: it could not be told, or does not apply."""

    op: str  # "linear", "sdpa"; of a device the family of its instructions, "wgmma"
    dtype: str  # of both factors; "e4m3 × e5m2" where they differ
    result: str  # "fp32"
    path: str  # "torch.nn.functional.linear", "simulated:hopper m64n8k32.f32.e4m3.e4m3"
    shape: tuple[int, int, int]  # M, N, K
    threads: int
    tree: str | None  # as text; of a device leaf 0 is the old value, products follow
    tree_hash: str | None
    order: str | None  # the tree in words
    accumulator_bits: int | None  # sign, exponent and fraction of what the sum is kept in
    sum_fraction_bits: int | None  # after the leading one
    rounding: str | None  # of the sum
    fma: bool | None  # products join the sum unrounded; None: every product fits
    subnormals: str | None
    infinities: str | None
    #: Below the leading bit of the largest term, of terms that are added at once.
    fraction_bits: int | None = None
    alignment: str | None = None  # what happens to the bits below
    products_before_rounding: int | None = None
    products_per_step: int | None = None  # that join the running sum as one
    bits: str | None = None  # hash of what it computes from fixed inputs
    why: str = ""  # the tree could not be read

    @property
    def key(self) -> tuple[object, ...]:
        """What has to be equal for two readings to be of one thing."""
        return self.op, self.dtype, self.path, self.shape, self.threads


class FunctionReading(Record):
    name: str  # "exp"
    dtype: str
    largest_error_ulp: float  # on a fixed grid, against float64
    at: float  # where on it
    bits: str  # hash of all results


class FingerprintReport(Record):
    kind: Literal["fingerprint"] = "fingerprint"
    device: str
    paths: tuple[PathReading, ...]
    functions: tuple[FunctionReading, ...]
    environment: Mapping[str, Any]
    hash: str  # of paths and functions
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(
        device: str,
        paths: Sequence[PathReading],
        functions: Sequence[FunctionReading],
        environment: Mapping[str, Any],
        notes: Sequence[str] = (),
    ) -> FingerprintReport:
        return FingerprintReport(
            kind="fingerprint",
            device=device,
            paths=tuple(paths),
            functions=tuple(functions),
            environment=environment,
            hash=digest([each.to_dict() for each in (*paths, *functions)]),
            notes=tuple(notes),
        )


def digest(value: Any) -> str:
    """Of JSON values."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def shortened(tree: str) -> str:
    return tree if len(tree) <= MOST_TREE else tree[: MOST_TREE - 1] + "…"
