"""Step profiles: |Δ| of a step by every coordinate that it brought, the telling one first.

In: blocks of tokens with their labels. Out: Profiles with rows and a sentence about their shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from driftscope_probes.mismatch.number import IntArray
from driftscope_probes.mismatch.token_differences import TokenDifferences, token_differences
from driftscope_probes.profiles.coordinate_sums import CoordinateSums, Cut, Row
from driftscope_probes.profiles.offset_scan import OffsetScan
from driftscope_probes.profiles.shapes import Shape, label_shape, place_shape
from driftscope_probes.tokens import Tokens

ProfileName = Literal["index", "end", "position", "turn", "rank", "replica", "environment"]
#: In the order of the pages: heading of the column, and what the profile runs along.
ALONG: Final[Mapping[ProfileName, str]] = {
    "index": "place in the response",
    "end": "distance from the end",
    "position": "absolute position",
    "turn": "turn",
    "rank": "rank",
    "replica": "replica",
    "environment": "environment",
}
PLACES: Final[tuple[ProfileName, ...]] = ("index", "end", "position")
#: 1 for the last token of a sequence; a turn of −1 is used for "none".
FIRST: Final[Mapping[ProfileName, int]] = {"end": 1, "turn": -1}
#: Added to 1 − p where it divides: below it float32's rounding would show.
CERTAINTY_EPSILON = 1e-3
#: A token this sure on both sides can only agree, unless it differs by more than this.
OPEN_BELOW, OPEN_ABOVE = 0.99, 0.01
#: Sizes below float32's own rounding are as good as equal, on the logits in nats.
LEAST_SIZE = 1e-7


@dataclass(frozen=True, slots=True)
class Profile:
    name: ProfileName
    along: str
    rows: list[Row]
    shape: Shape

    def to_dict(self) -> dict[str, Any]:
        names = ("from", "below", "tokens", "abs_diff_mean", "diff_mean", "abs_diff_max")
        return {
            "along": self.along,
            "sentence": self.shape.sentence,
            "telling": self.shape.telling,
            "bins": [dict(zip(names, row, strict=True)) for row in self.rows],
        }


@dataclass(slots=True)
class StepProfiles:
    """Filled block by block; a block holds whole sequences."""

    sums: dict[ProfileName, CoordinateSums] = field(default_factory=dict)
    offsets: OffsetScan = field(default_factory=OffsetScan)
    #: of each sequence that differs: index and absolute position of its first differing token
    first_index: list[IntArray] = field(default_factory=list)
    first_position: list[IntArray] = field(default_factory=list)
    lowest_position: int | None = None

    def add(self, tokens: Tokens, differences: TokenDifferences | None = None) -> None:
        differences = token_differences(tokens) if differences is None else differences
        self.offsets.add(tokens)
        self._add_onsets(tokens)
        certainty = np.minimum(differences.rollout_prob, 1.0)
        size = differences.abs_diff / (1.0 - certainty + CERTAINTY_EPSILON)
        is_open = (certainty < OPEN_BELOW) | (differences.abs_diff > OPEN_ABOVE)
        size = np.where(is_open, np.log(np.maximum(size, LEAST_SIZE)), 0.0)
        for name, of_tokens in _COORDINATES.items():
            coordinate = of_tokens(tokens, differences)
            if coordinate is not None:
                sums = self.sums.setdefault(name, CoordinateSums(FIRST.get(name, 0)))
                sums.add(coordinate, differences.diff, size, is_open.astype(np.float64))

    def _add_onsets(self, tokens: Tokens) -> None:
        differs = np.flatnonzero((tokens.rollout != tokens.trainer) & tokens.takes_part)
        sequence = np.searchsorted(tokens.cu_seqlens, differs, side="right") - 1
        which, starts = np.unique(sequence, return_index=True)
        rows = differs[starts]
        self.first_index.append(rows - tokens.cu_seqlens[which])
        positions = tokens.extras.position_ids
        if positions is None or not positions.size:
            return
        self.first_position.append(positions[rows].astype(np.int64))
        lowest = int(positions[tokens.takes_part].min(initial=positions.max()))
        self.lowest_position = min(lowest, self.lowest_position or lowest)

    def profiles(self) -> list[Profile]:
        """Those that tell something first, by how much they account for."""
        shapes = {name: self._shape(name) for name in ALONG if name in self.sums}
        leading = max(
            (one for one in shapes.values() if one.telling), key=lambda one: one.gain, default=None
        )
        found = [
            Profile(name, ALONG[name], self._rows(name, shape), shape.beside(leading))
            for name, shape in shapes.items()
        ]
        return sorted(found, key=lambda one: -one.shape.gain if one.shape.telling else 1.0)

    @property
    def sentence(self) -> str | None:
        """Where the differences lie, where one profile or offset says so."""
        told = self.offsets.sentence
        if told is not None:
            return told
        found = self.profiles()
        return found[0].shape.sentence if found and found[0].shape.telling else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "sentence": self.sentence,
            "offsets": self.offsets.to_dict(),
            **{f"by_{one.name}": one.to_dict() for one in self.profiles()},
        }

    def _shape(self, name: ProfileName) -> Shape:
        sums = self.sums[name]
        if name not in PLACES:
            return label_shape(name, sums)
        first: list[IntArray] = []
        lowest = 0
        if name == "position":
            first, lowest = self.first_position, self.lowest_position or 0
        elif name == "index" and "position" not in self.sums:
            first = self.first_index
        return place_shape(name, sums, np.concatenate([np.zeros(0, np.int64), *first]), lowest)

    def _rows(self, name: ProfileName, shape: Shape) -> list[Row]:
        sums = self.sums[name]
        return sums.binned(shape.at) if name in PLACES else sums.each()


def step_profiles(tokens: Tokens) -> StepProfiles:
    found = StepProfiles()
    found.add(tokens)
    return found


# Coordinates of the kept tokens; None where the step does not have them -------------------


def _end(tokens: Tokens, differences: TokenDifferences) -> IntArray:
    """1 for the last unmasked token of its sequence."""
    if tokens.mask is None:
        after = tokens.cu_seqlens[1:]
    else:
        unmasked = np.flatnonzero(tokens.mask)
        before = np.searchsorted(unmasked, tokens.cu_seqlens[1:])
        after = unmasked[np.maximum(before, 1) - 1] + 1 if unmasked.size else before
    position = differences.position
    rows = np.arange(differences.diff.size) if position is None else position
    return np.asarray(
        np.repeat(after[differences.sequence_index], differences.length) - rows, np.int64
    )


def _of_token(name: str) -> Callable[[Tokens, TokenDifferences], IntArray | None]:
    def coordinate(tokens: Tokens, differences: TokenDifferences) -> IntArray | None:
        values = getattr(tokens.extras, name)
        return None if values is None else differences.kept(values).astype(np.int64)

    return coordinate


def _of_sequence(name: str) -> Callable[[Tokens, TokenDifferences], IntArray | None]:
    def coordinate(tokens: Tokens, differences: TokenDifferences) -> IntArray | None:
        values = getattr(tokens.extras, name)
        if values is None:
            return None
        of_kept = values[differences.sequence_index].astype(np.int64)
        return np.asarray(np.repeat(of_kept, differences.length), np.int64)

    return coordinate


_COORDINATES: Final[Mapping[ProfileName, Callable[[Tokens, TokenDifferences], IntArray | None]]] = {
    "index": lambda _, differences: differences.response_index(),
    "end": _end,
    "position": _of_token("position_ids"),
    "turn": _of_token("turn_ids"),
    "rank": _of_sequence("rank"),
    "replica": _of_sequence("replica"),
    "environment": _of_sequence("environment"),
}
__all__ = ["ALONG", "Cut", "Profile", "ProfileName", "StepProfiles", "step_profiles"]
