"""How the functions of the fused pass are compiled: two decorators, and where the code is kept.

In: a Python function of numbers and arrays. Out: the same function as machine code, typed alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

# Division by zero gives infinity or NaN as in numpy; a check for it would stop vectorisation.
ERROR_MODEL = "numpy"

# Lets a sum run in as many lanes as the processor has. It belongs on loops that do nothing but add
# up what inlined() functions return: reordering inside those would undo their compensation terms.
ADD_IN_ANY_ORDER = frozenset({"reassoc"})

NOT_KEPT = (
    "compiled code cannot be kept on disk, so that every new process compiles for some seconds: "
    "set NUMBA_CACHE_DIR to a folder that can be written to."
)


def inlined(function: Function) -> Function:
    """For what one token needs: becomes part of the loop that calls it, in strict arithmetic."""
    return cast(Function, njit(error_model=ERROR_MODEL, forceinline=True)(function))


def summing(function: Function) -> Function:
    """For loops over a block that add up; see ADD_IN_ANY_ORDER."""
    return cast(Function, njit(error_model=ERROR_MODEL, fastmath=set(ADD_IN_ANY_ORDER))(function))


def compiled(function: Function) -> Function:
    """For loops in strict arithmetic that only compiled code calls."""
    return cast(Function, njit(error_model=ERROR_MODEL)(function))


def kept_on_disk(function: Function) -> Function:
    """For what Python calls: compiled at the first call and read from disk by later processes.

    numba keeps the code beside the source file, else in the user's cache folder.
    """
    try:
        return cast(Function, njit(error_model=ERROR_MODEL, cache=True)(function))
    except RuntimeError:  # numba: no locator available
        warnings.warn(NOT_KEPT, RuntimeWarning, stacklevel=2)
        return cast(Function, njit(error_model=ERROR_MODEL)(function))
