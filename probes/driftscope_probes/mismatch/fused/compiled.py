"""How the functions of the fused pass are compiled: four decorators, and where the code is kept.

In: a Python function of numbers and arrays. Out: the same function as machine code, typed alike.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

# Division by zero gives infinity or NaN as in numpy; a check for it would stop vectorisation.
ERROR_MODEL = "numpy"

# Lets a sum run in as many lanes as the processor has. It belongs on loops that do nothing but add
# up what inlined() functions return: reordering inside those would undo their compensation terms.
ADD_IN_ANY_ORDER = frozenset({"reassoc"})

# Only compiled code calls what is not kept on disk: no way in from Python is compiled for it.
INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# What Python calls touches nothing but its arrays, so that another thread may run meanwhile.
ENTRY = {"error_model": ERROR_MODEL, "nogil": True}

NOT_KEPT = (
    "compiled code cannot be kept on disk, so that every new process compiles for some seconds: "
    "set NUMBA_CACHE_DIR to a folder that can be written to."
)

FOLDER = Path(__file__).parent
# All that the compiled code takes numbers from beside this folder.
NUMBERS_FROM = ("terms.py",)


def sources_fingerprint(folder: Path) -> int:
    """Changes with every source that goes into the compiled code; 60 bits, an int in numba.

    numba tells whether code on disk is current by the file of the entry function alone, and by the
    values that function closes over: each entry closes over SOURCES, which stands for the rest.
    """
    files = [*sorted(folder.glob("*.py")), *(folder.parent / name for name in NUMBERS_FROM)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return int(digest.hexdigest()[:15], base=16)


SOURCES = sources_fingerprint(FOLDER)


def inlined(function: Function) -> Function:
    """For what one token needs: becomes part of the loop that calls it, in strict arithmetic."""
    return cast(Function, njit(error_model=ERROR_MODEL, forceinline=True, **INNER)(function))


def summing(function: Function) -> Function:
    """For loops over a block that add up; see ADD_IN_ANY_ORDER."""
    order = set(ADD_IN_ANY_ORDER)
    return cast(Function, njit(error_model=ERROR_MODEL, fastmath=order, **INNER)(function))


def compiled(function: Function) -> Function:
    """For loops in strict arithmetic that only compiled code calls."""
    return cast(Function, njit(error_model=ERROR_MODEL, **INNER)(function))


def kept_on_disk(function: Function) -> Function:
    """For what Python calls: compiled at the first call and read from disk by later processes.

    The function has to close over SOURCES. numba keeps the code beside the source file, else in
    the user's cache folder.
    """
    assert function.__closure__ is not None, "an entry that no edit would compile anew"
    try:
        return cast(Function, njit(cache=True, **ENTRY)(function))
    except RuntimeError:  # numba: no locator available
        warnings.warn(NOT_KEPT, RuntimeWarning, stacklevel=2)
        return cast(Function, njit(**ENTRY)(function))
