"""Weights of two dumps by name, by value.

In: dumps. Out: those that differ, how many were compared, and what one of them holds alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from driftscope_kernels.compare_bits import BITS
from driftscope_kernels.compare_ops.equality import compared
from driftscope_probes.explain.comparison import in_one_dtype
from driftscope_probes.explain.dumps.rows import Dump
from driftscope_probes.explain.report import Alignment, Check, WeightDifference


def alignment_of(checks: Sequence[Check], left: Dump | None, right: Dump | None) -> Alignment:
    """Dumps are None where only statistics are there."""
    mine = {} if left is None else left.raw.weights
    theirs = {} if right is None else right.raw.weights
    differing = []
    common = [name for name in mine if name in theirs]
    for name in common:
        a, b = mine[name].read(), theirs[name].read()
        if a.shape != b.shape:
            says = f"{list(a.shape)} in A, {list(b.shape)} in B"
            differing.append(
                WeightDifference(tensor=name, equal_fraction=0.0, max_abs=0.0, says=says)
            )
            continue
        a, b = in_one_dtype(*(_row(value) for value in (a, b)))
        found = compared(a, b)
        if not found.exact:
            differing.append(
                WeightDifference(
                    tensor=name,
                    equal_fraction=found.fraction,
                    max_abs=min(found.max_abs, LARGEST),
                    says=f"{found.elements - found.equal:,} of {found.elements:,} elements differ",
                )
            )
    return Alignment(
        checks=list(checks),
        weights=differing,
        weights_compared=len(common),
        weights_unknown=sorted(mine.keys() ^ theirs.keys()),
    )


def _row(value: Tensor) -> Tensor:
    """[1, elements]; 8-bit floats have no bits to compare, and are exact in float32."""
    exact = value if value.dtype in BITS or not value.is_floating_point() else value.float()
    return exact.flatten()[None]


#: JSON has no infinity.
LARGEST = 1.7976931348623157e308
