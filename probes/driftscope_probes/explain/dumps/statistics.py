"""Two dumps of which one holds no elements, only what msprobe counts of each tensor.

In: statistics by place. Out: which places differ by them, and where first. Bits cannot be compared:
equal statistics do not show equal bits; an equal CRC-32 of the bits does, but for one case in 2³².
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from driftscope_probes.explain.dumps.base import NUMBERS, Statistics
from driftscope_probes.explain.sites import Place
from driftscope_probes.plural import counted


@dataclass(frozen=True, slots=True)
class StatisticsResult:
    places: tuple[Place, ...]  # in both, in the order in which they ran
    differing: tuple[Place, ...]
    hashed: bool  # all were compared by CRC-32
    sentence: str
    unequal_shapes: tuple[str, ...]


Table = Mapping[Place, tuple[Statistics, ...]]


def compare_statistics(left: Table, right: Table) -> StatisticsResult:
    places = [place for place in left if place in right]
    shapes = []
    differing = []
    detail = ""
    hashed = bool(places)
    for place in places:
        a, b = left[place], right[place]
        if len(a) != len(b) or any(_size(x) != _size(y) for x, y in zip(a, b, strict=True)):
            shapes.append(f"{place.key}: {_shapes(a)} in A, {_shapes(b)} in B")
            continue
        pairs = list(zip(a, b, strict=True))
        hashed = hashed and all(x.crc is not None and y.crc is not None for x, y in pairs)
        told = next((told for x, y in pairs if (told := _difference(x, y))), None)
        if told is not None:
            detail = detail or f"{place.key} is the first that differs: {told}"
            differing.append(place)
    counted_places = counted(len(places) - len(shapes), "tensor")
    what = "CRC-32" if hashed else "maximum, minimum, mean and norm"
    if differing:
        sentence = (
            f"{detail}. {len(differing)} of {counted_places} differ by {what}; the dumps hold no "
            "elements, so which token and feature, and by what, cannot be said."
        )
    elif hashed:
        sentence = f"All {counted_places} have the same CRC-32."
    else:
        sentence = (
            f"All {counted_places} have the same {what}. That does not show equal bits, which "
            "cannot be compared: the dumps hold no elements."
        )
    return StatisticsResult(tuple(places), tuple(differing), hashed, sentence, tuple(shapes))


def _difference(a: Statistics, b: Statistics) -> str | None:
    if a.crc is not None and b.crc is not None:
        return None if a.crc == b.crc else f"CRC-32 {a.crc} in A, {b.crc} in B"
    for name in NUMBERS:
        x, y = a.numbers.get(name), b.numbers.get(name)
        if x is not None and y is not None and x != y and not (x != x and y != y):
            return f"{name} {x!r} in A, {y!r} in B"
    return None


def _size(one: Statistics) -> tuple[int, ...]:
    """Without dimensions of 1: [1, tokens, features] is [tokens, features]."""
    return tuple(size for size in one.shape if size != 1)


def _shapes(many: tuple[Statistics, ...]) -> str:
    return ", ".join(str(list(one.shape)) for one in many)
