"""What is done with every tensor between two ops while a side runs: kept, replaced, or both.

In: a place, the rows that are there in this call, their values. Out: the values to go on with.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from torch import Tensor

from driftscope_probes.explain.sites import Place
from driftscope_probes.explain.store import Captured, Store


class Tap(Protocol):
    def at(self, place: Place, value: Tensor, rows: Tensor) -> Tensor:
        """`value` [rows, features]; `rows` int64 [rows]: which of the sample's tokens these are.

        The tensor that comes back has the shape, dtype and device of `value`, and may be it.
        """
        ...


class Capture:
    """Keeps everything and changes nothing."""

    def __init__(self, into: Store) -> None:
        self._into = into

    def at(self, place: Place, value: Tensor, rows: Tensor) -> Tensor:
        self._into.write(place, rows, value)
        return value


class EqualInputs:
    """Every op gets what the other side's op got: PaDiff's single step, at every op at once.

    What an op makes of the other side's inputs is kept; then the other side's own output takes its
    place, and so is the next op's input.
    """

    def __init__(self, given: Captured, into: Store) -> None:
        self._given, self._into = given, into

    def at(self, place: Place, value: Tensor, rows: Tensor) -> Tensor:
        self._into.write(place, rows, value)
        if place not in self._given.places:
            return value
        theirs = rows_of(self._given, place, rows)
        return theirs.to(value.device, value.dtype).reshape(value.shape)


class Replaced:
    """At some places the other side's values, elsewhere the side's own."""

    def __init__(self, given: Captured, places: Collection[Place]) -> None:
        self._given, self._places = given, frozenset(places)

    def at(self, place: Place, value: Tensor, rows: Tensor) -> Tensor:
        if place not in self._places:
            return value
        theirs = rows_of(self._given, place, rows)
        return theirs.to(value.device, value.dtype).reshape(value.shape)


def rows_of(given: Captured, place: Place, rows: Tensor) -> Tensor:
    if isinstance(given, Store):
        return given.read_rows(place, rows)
    return given.read(place)[rows.cpu()]
