"""Two results of one op, compared bit by bit: how many elements, how far, and where first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from driftscope_kernels.compare_bits import BITS, bits


@dataclass(frozen=True, slots=True)
class Place:
    """The first element that differs, in the order of rows."""

    row: int
    feature: int
    left: float
    right: float
    ulps: int | None  # None where one side is not a number


@dataclass(frozen=True, slots=True)
class Equality:
    elements: int
    equal: int
    max_ulp: int  # over elements that are numbers on both sides
    max_abs: float
    not_numbers: int  # elements that are NaN on one side alone
    first: Place | None

    @property
    def fraction(self) -> float:
        """Of elements that are bitwise equal; −0 and +0 are not, one NaN and the same NaN are."""
        return self.equal / self.elements if self.elements else 1.0

    @property
    def exact(self) -> bool:
        return self.equal == self.elements

    def __add__(self, other: Equality) -> Equality:
        return Equality(
            self.elements + other.elements,
            self.equal + other.equal,
            max(self.max_ulp, other.max_ulp),
            max(self.max_abs, other.max_abs),
            self.not_numbers + other.not_numbers,
            self.first or other.first,
        )


NOTHING = Equality(0, 0, 0, 0.0, 0, None)


def compared(left: Tensor, right: Tensor) -> Equality:
    """[rows, features] each, one dtype. Raises ValueError for other shapes or dtypes."""
    if left.shape != right.shape or left.dtype != right.dtype:
        raise ValueError(
            f"{tuple(left.shape)} {left.dtype} and {tuple(right.shape)} {right.dtype} cannot be "
            "compared bit by bit: round both to one dtype and shape first"
        )
    if not left.is_floating_point():
        return _integers(left, right)
    unequal = bits(left) != bits(right)
    if not bool(unequal.any()):
        return Equality(left.numel(), left.numel(), 0, 0.0, 0, None)
    where = unequal.reshape(len(left), -1)
    a, b = left.reshape(where.shape), right.reshape(where.shape)
    distance = (ordered(a) - ordered(b)).abs()
    lost = a.isnan() != b.isnan()
    counted = distance.masked_fill(a.isnan() | b.isnan(), 0)
    gap = (a.double() - b.double()).abs()
    row, feature = (int(index) for index in where.nonzero()[0])
    one = None if bool(lost[row, feature]) else int(distance[row, feature])
    return Equality(
        elements=left.numel(),
        equal=left.numel() - int(unequal.sum()),
        max_ulp=int(counted.max()),
        max_abs=float(gap.nan_to_num(0.0, torch.inf, torch.inf).max()),
        not_numbers=int(lost.sum()),
        first=Place(row, feature, float(a[row, feature]), float(b[row, feature]), one),
    )


def ordered(values: Tensor) -> Tensor:
    """int64 in the order of the floats: neighbours differ by one, −0 and +0 are both 0."""
    integers = bits(values).long()
    lowest = torch.iinfo(BITS[values.dtype]).min
    return torch.where(integers >= 0, integers, lowest - integers)


def _integers(left: Tensor, right: Tensor) -> Equality:
    unequal = (left != right).reshape(len(left), -1)
    if not bool(unequal.any()):
        return Equality(left.numel(), left.numel(), 0, 0.0, 0, None)
    row, feature = (int(index) for index in unequal.nonzero()[0])
    a, b = left.reshape(unequal.shape), right.reshape(unequal.shape)
    gap = (a - b).abs()
    first = Place(row, feature, float(a[row, feature]), float(b[row, feature]), None)
    count = left.numel() - int(unequal.sum())
    return Equality(left.numel(), count, 0, float(gap.max()), 0, first)
