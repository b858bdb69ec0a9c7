"""Random numbers that one side alone draws, recognised by their mark on its output.

In: what an op gives without them, and what was seen. Out: the share dropped, or None.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor

from driftscope_kernels.compare_ops.precision import roundoff, shortest_decimal

#: Fewer elements than these leave a share to chance.
_LEAST_ELEMENTS: Final = 64
#: Roundings between the plain value and the one seen: each side's own result, and the factor.
_ROUNDINGS: Final = 4
#: The share of kept elements that may lie further off: the sides round the op itself differently.
_STRAYS: Final = 0.02
#: A dropped share and the factor 1/(1 − p) tell the same p, but for chance: 5 standard errors.
_ERRORS: Final = 5.0


def dropout_of(plain: Tensor, seen: Tensor) -> float | None:
    """p, where `seen` is `plain` with a share p set to zero and the rest times 1/(1 − p).

    Both of one shape. None where it is anything else; p is the shortest decimal that fits.
    """
    wide, theirs = plain.double().reshape(-1), seen.double().reshape(-1)
    told = wide != 0
    wide, theirs = wide[told], theirs[told]
    dropped = theirs == 0
    kept = int((~dropped).sum())
    if len(wide) < _LEAST_ELEMENTS or kept == 0 or kept == len(wide):
        return None
    share = 1 - kept / len(wide)
    ratio = theirs[~dropped] / wide[~dropped]
    factor = float(ratio.median())
    width = _ROUNDINGS * roundoff(seen.dtype)
    near = (ratio / factor - 1).abs() <= width
    if factor <= 1 or float(near.double().mean()) < 1 - _STRAYS:
        return None
    told_by_factor = 1 - 1 / factor
    chance = _ERRORS * (share * (1 - share) / len(wide)) ** 0.5
    if abs(told_by_factor - share) > chance + width:
        return None
    # The factor tells p closer than the share does: by its rounding, 1/(1 − p) moves p so far.
    error = width * (1 - told_by_factor)
    return shortest_decimal(told_by_factor - error, told_by_factor + error)
