"""Three machine operations that Python has no name for: fused multiply-add, and a float's bits.

In and out: single numbers, in compiled code alone. Each is one LLVM instruction, which vectorises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic


def _fma(typing_context: Any, x: Any, y: Any, z: Any) -> Any:
    """x·y + z, rounded once. Written out so that no compiler decides where it is used."""
    signature = types.float64(types.float64, types.float64, types.float64)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return signature, code


def _bits_of(typing_context: Any, value: Any) -> Any:
    """The 64 bits of a float64 as an int64; for values from +0 on they rise with the value."""
    signature = types.int64(types.float64)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int64))

    return signature, code


def _bits_of_single(typing_context: Any, value: Any) -> Any:
    """The 32 bits of a float32 as an int32."""
    signature = types.int32(types.float32)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return signature, code


def _from_bits(typing_context: Any, value: Any) -> Any:
    """The float64 that has the bits of an int64."""
    signature = types.float64(types.int64)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return signature, code


fma: Callable[[float, float, float], float] = intrinsic(_fma)
bits_of: Callable[[float], int] = intrinsic(_bits_of)
bits_of_single: Callable[[np.float32], int] = intrinsic(_bits_of_single)
from_bits: Callable[[int], float] = intrinsic(_from_bits)
