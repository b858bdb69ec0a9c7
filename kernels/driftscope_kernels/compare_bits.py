"""Two results, compared bit by bit, row by row. In: tensors [rows, ...]. Out: rows that differ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: The integer type that holds the bits of each floating-point type.
BITS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
}


@dataclass(frozen=True, slots=True)
class Difference:
    """The first element of one row in which two results differ."""

    row: int
    index: int  # within the row, flattened
    left: float | str  # the value; "nan", "inf" or "-inf" where JSON has no number for it
    right: float | str
    left_bits: str  # hexadecimal
    right_bits: str
    ulps: int | None  # None where one side is not a number
    elements: int  # how many of the row differ
    of: int  # elements of the row


def bits(values: Tensor) -> Tensor:
    """The same bytes as integers: equal NaNs are equal, −0 and +0 are not."""
    return values.contiguous().view(BITS[values.dtype])


def differing_rows(left: Tensor, right: Tensor) -> Tensor:
    """int64 [n]: rows in which any bit differs. Raises ValueError for unequal shapes or dtypes."""
    if left.shape != right.shape or left.dtype != right.dtype:
        raise ValueError(
            f"a kernel returned {tuple(left.shape)} {left.dtype} and then {tuple(right.shape)} "
            f"{right.dtype} for as many rows; its result has to be one row per row of x"
        )
    unequal = bits(left) != bits(right)
    return unequal.reshape(len(left), -1).any(dim=1).nonzero().flatten()


def first_difference(left: Tensor, right: Tensor, row: int) -> Difference:
    """First difference in a row known to differ. `row` is its index in both."""
    a, b = left[row].reshape(-1), right[row].reshape(-1)
    where = (bits(a) != bits(b)).nonzero().flatten()
    index = int(where[0])
    return Difference(
        row=row,
        index=index,
        left=_value(a[index]),
        right=_value(b[index]),
        left_bits=_hexadecimal(a[index]),
        right_bits=_hexadecimal(b[index]),
        ulps=ulps(a[index], b[index]),
        elements=len(where),
        of=a.numel(),
    )


def ulps(left: Tensor, right: Tensor) -> int | None:
    """Representable values between two scalars of one dtype; −0 and +0 are 0 apart."""
    if bool(left.isnan()) or bool(right.isnan()):
        return None
    return abs(_ordered(left) - _ordered(right))


def _ordered(value: Tensor) -> int:
    """Integers in the order of the floats: neighbours differ by one."""
    integer = int(bits(value.reshape(1))[0])
    lowest = torch.iinfo(BITS[value.dtype]).min
    return integer if integer >= 0 else lowest - integer


def _value(value: Tensor) -> float | str:
    number = float(value)
    return number if bool(torch.isfinite(value)) else str(number)


def _hexadecimal(value: Tensor) -> str:
    width = value.element_size()
    return f"0x{int(bits(value.reshape(1))[0]) & ((1 << 8 * width) - 1):0{2 * width}x}"
