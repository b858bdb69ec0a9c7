"""Which of the ways to compute on a CPU is in use, and the matrices that its operators take.

In: the environment variable DRIFTSCOPE_KERNELS; tensors of any stride. Out: the operator namespace,
or None for portable; matrices whose rows are contiguous, and the way back.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from typing import Any

from torch import Tensor

from driftscope_kernels.cpu import build

VARIABLE = "DRIFTSCOPE_KERNELS"
COMPILED, PORTABLE = "compiled", "portable"


class BackendError(ValueError):
    """A backend or an instruction set that does not exist, or is not on this CPU."""


@cache
def operators() -> Any:
    """The built operators; None if there is no compiler (said once) or portable was asked for."""
    wanted = os.environ.get(VARIABLE) or COMPILED
    if wanted not in (COMPILED, PORTABLE):
        raise BackendError(f"{VARIABLE} = {wanted!r}: choose {COMPILED} or {PORTABLE}")
    if wanted == PORTABLE:
        return None
    try:
        return build.library()
    except build.ToolchainMissingError as error:
        warnings.warn(
            f"{error} Until then the portable kernels are used: same bits, many times slower.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def instruction_sets() -> tuple[str, ...]:
    """The values that `isa` accepts here, fastest first."""
    found = operators()
    return (*(() if found is None else found.instruction_sets()), PORTABLE)


def chosen(isa: str | None) -> Any:
    """The operators to call with this `isa`, None for the portable way."""
    found = operators()
    if isa is None:
        return found
    if isa == PORTABLE:
        return None
    if isa not in instruction_sets():
        raise BackendError(f"isa = {isa!r}: on this CPU there are {', '.join(instruction_sets())}")
    return found


def contiguous_rows(x: Tensor) -> Tensor:
    """[rows, n] of the last dimension: a view where the strides allow it, else a copy."""
    rows = x if x.dim() == 2 else x.reshape(x.shape[:-1].numel(), x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def along(x: Tensor, dim: int) -> Tensor:
    """[rows, n] with `dim` last."""
    return contiguous_rows(x if _is_last(x, dim) else x.movedim(dim, -1))


def back(rows: Tensor, like: Tensor, dim: int) -> Tensor:
    """In the shape of `like`, contiguous, from what `along` gave."""
    if _is_last(like, dim):
        return rows if like.dim() == 2 else rows.reshape(like.shape)
    return rows.reshape(like.movedim(dim, -1).shape).movedim(-1, dim).contiguous()


def _is_last(x: Tensor, dim: int) -> bool:
    return dim in (-1, x.dim() - 1)
