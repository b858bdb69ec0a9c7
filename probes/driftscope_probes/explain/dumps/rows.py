"""Tensors of a dump as [rows, features] over all its forward passes, whatever shape they had.

In: pieces of [tokens, …], [1, tokens, …], [batch, tokens, …], [tokens, batch, …]. Out: one tensor
per place, rows in the order of the passes, padding dropped; the rows' tokens, positions and
sequences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from driftscope_probes.errors import RequestError
from driftscope_probes.explain.dumps.base import (
    CU_SEQLENS,
    FACTS,
    LOGPROB,
    MASK,
    POSITIONS,
    TOKENS,
    Piece,
    RawDump,
)
from driftscope_probes.explain.dumps.packed import Cut, Widths, cuts_of
from driftscope_probes.explain.sites import Place

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RowFacts:
    tokens: Tensor | None  # int64 [rows]
    positions: Tensor  # int64 [rows], from 0 in each sequence where the dump does not say
    cu_seqlens: Tensor  # int64 [sequences + 1]

    @property
    def rows(self) -> int:
        return len(self.positions)

    def place_of(self, row: int) -> tuple[int, int]:
        """Sequence and position of a row."""
        sequence = int(torch.searchsorted(self.cu_seqlens, row, right=True)) - 1
        return sequence, int(self.positions[row])


class Dump:
    """`Captured` of a folder."""

    def __init__(self, raw: RawDump) -> None:
        if not raw.steps:
            raise RequestError(
                f"nothing in the {raw.form} dump is a tensor between two ops of a decoder.",
                remedy="name tensors as docs/capture.md says. Not known: "
                + (", ".join(raw.uncovered[:8]) or "there is nothing at all")
                + ".",
            )
        self.raw = raw
        self._leads = [_lead(step) for step in raw.steps]
        self._kept = [_unpadded(s, lead) for s, lead in zip(raw.steps, self._leads, strict=True)]
        self.facts = _facts(raw.steps, self._leads, self._kept)
        self.uncovered = list(raw.uncovered)
        whole = self._whole()
        self.widths = Widths.of(raw.config, {key: self._width(key) for key in whole})
        self._cuts: dict[Place, Cut] = {}
        self._whole_keys = whole
        self.learn(self.widths)

    def learn(self, other: Widths) -> None:
        """Cut packed tensors with what the other dump's tensors say of their sizes."""
        self._cuts, unknown = cuts_of(
            {key: self._width(key) for key in self._whole_keys}, self.widths | other
        )
        self._uncut = unknown

    @property
    def places(self) -> Collection[Place]:
        return self._cuts.keys()

    @property
    def not_seen(self) -> list[str]:
        """Names of what the folder holds and nothing here can place."""
        return [*self.uncovered, *self._uncut]

    def read(self, place: Place) -> Tensor:
        """[rows, features]; the log-probabilities as they stand, [n]."""
        cut = self._cuts[place]
        pieces = [step[cut.key] for step in self.raw.steps]
        if place == LOGPROB:
            return torch.cat([piece.read().reshape(-1) for piece in pieces])
        parts = [
            _as_rows(piece.read(), lead)[kept]
            for piece, lead, kept in zip(pieces, self._leads, self._kept, strict=True)
        ]
        return cut.of(torch.cat(parts))

    def dtype(self, place: Place) -> torch.dtype:
        return self.raw.steps[0][self._cuts[place].key].dtype

    def weight(self, name: str) -> Tensor | None:
        """By Hugging Face's parameter name, whatever stands before it."""
        found = [piece for key, piece in self.raw.weights.items() if f".{key}".endswith(f".{name}")]
        return found[0].read() if len(found) == 1 else None

    def _whole(self) -> list[str]:
        """Keys that every pass has, of shapes that are rows."""
        seen = Counter(key for step in self.raw.steps for key in step if key not in FACTS)
        whole = []
        for key, times in seen.items():
            shapes = [step[key].shape for step in self.raw.steps if key in step]
            if times < len(self.raw.steps):
                self.uncovered.append(f"{key}: in {times} of {len(self.raw.steps)} forward passes")
            elif key != LOGPROB.key and not all(
                _fits(shape, lead) for shape, lead in zip(shapes, self._leads, strict=True)
            ):
                self.uncovered.append(f"{key}: {list(shapes[0])} is not one row per token")
            elif key != LOGPROB.key and len({shape[-1] for shape in shapes}) > 1:
                self.uncovered.append(f"{key}: the number of features changes from pass to pass")
            else:
                whole.append(key)
        return whole

    def _width(self, key: str) -> int:
        """Features of a row."""
        shape, lead = self.raw.steps[0][key].shape, self._leads[0]
        rows = prod(lead)
        return prod(shape) // rows if rows else 0


def _lead(step: Mapping[str, Piece]) -> Shape:
    """The dimensions that count tokens: [tokens] or [batch, tokens]."""
    for fact in (TOKENS, MASK):  # with a key-value cache the mask counts older tokens too
        if fact in step and len(step[fact].shape) in (1, 2):
            return step[fact].shape
    shapes = [piece.shape for key, piece in step.items() if key not in FACTS | {LOGPROB.key}]
    deep = Counter(shape[:2] for shape in shapes if len(shape) > 2)
    flat = Counter(shape[:1] for shape in shapes if len(shape) == 2)
    most = (deep or flat).most_common(1)
    if not most:
        raise RequestError(
            "no tensor of the dump has rows and features.",
            remedy="capture what modules give, [tokens, features] or [batch, tokens, features].",
        )
    return most[0][0]


def _fits(shape: Shape, lead: Shape) -> bool:
    rows = prod(lead)
    if shape[: len(lead)] == lead or shape[:1] == (rows,):
        return True
    if len(lead) == 2:
        return shape[:2] == lead[::-1]
    return len(shape) > 1 and shape[:2] == (1, rows)


def _as_rows(value: Tensor, lead: Shape) -> Tensor:
    """[rows, features]"""
    rows = prod(lead)
    shape = tuple(value.shape)
    if len(lead) == 2 and shape[:2] != lead and shape[:2] == lead[::-1]:
        value = value.transpose(0, 1)  # Megatron: tokens before batch
    return value.reshape(rows, -1)


def _unpadded(step: Mapping[str, Piece], lead: Shape) -> Tensor:
    """int64: rows that are no padding."""
    mask = step.get(MASK)
    if mask is None or prod(mask.shape) != prod(lead):
        return torch.arange(prod(lead))
    return mask.read().reshape(-1).nonzero().flatten()


def _counts_tokens(shape: Shape, lead: Shape) -> bool:
    """Whether positions are one per token, or one row of them for a whole batch."""
    return prod(shape) == prod(lead) or (len(lead) == 2 and shape in (lead[1:], (1, lead[1])))


def _facts(
    steps: Sequence[Mapping[str, Piece]], leads: Sequence[Shape], kept: Sequence[Tensor]
) -> RowFacts:
    tokens, positions, starts = [], [], []
    for step, lead, rows in zip(steps, leads, kept, strict=True):
        batch = lead[0] if len(lead) == 2 else 1
        row_of = torch.arange(batch).repeat_interleave(prod(lead) // max(batch, 1))[rows]
        first = torch.ones(len(rows), dtype=torch.bool)
        first[1:] = row_of[1:] != row_of[:-1]
        given = step.get(POSITIONS)
        if given is None or not _counts_tokens(given.shape, lead):
            counted = torch.arange(len(rows))
            positions.append(counted - counted[first][first.long().cumsum(0) - 1])
        else:
            read = given.read().long()
            read = read.expand(lead) if prod(given.shape) != prod(lead) else read.reshape(lead)
            positions.append(read.reshape(-1)[rows])
            # In one row of a batch a pass may go on where the one before ended (decoding).
            first[:1] = batch > 1
        if CU_SEQLENS in step:
            bounds = step[CU_SEQLENS].read().long()
            first[bounds[(bounds >= 0) & (bounds < len(first))]] = True
        starts.append(first)
        if TOKENS in step:
            if prod(step[TOKENS].shape) != prod(lead):
                raise RequestError(
                    f"a dump has {prod(step[TOKENS].shape)} tokens for {prod(lead)} rows.",
                    remedy="write the tokens that the captured forward pass read.",
                )
            tokens.append(step[TOKENS].read().long().reshape(-1)[rows])
    where, start = torch.cat(positions), torch.cat(starts)
    start[1:] |= where[1:] != where[:-1] + 1
    start[:1] = True
    bounds = start.nonzero().flatten()
    return RowFacts(
        tokens=torch.cat(tokens) if len(tokens) == len(steps) else None,
        positions=where,
        cu_seqlens=torch.cat([bounds, torch.tensor([len(where)])]),
    )
