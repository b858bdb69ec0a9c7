"""Captured tensors of one pass on disk: written row by row, read as a whole.

In: places, rows and values. Out: one tensor per place. A pass over a large model would not fit in
memory beside it, so nothing but one layer's tensors is ever there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, KeysView
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import torch
from torch import Tensor

from driftscope_probes.explain.sites import Place


class Captured(Protocol):
    """Tensors by place, from wherever."""

    @property
    def places(self) -> Collection[Place]: ...

    def read(self, place: Place) -> Tensor:
        """[tokens, features] on the CPU. Raises KeyError."""
        ...


@dataclass(frozen=True, slots=True)
class _Entry:
    offset: int  # bytes
    shape: tuple[int, ...]  # of one row
    dtype: torch.dtype

    @property
    def row_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


class Store:
    """`rows` per place; rows of a place that were never written read as zeros."""

    def __init__(self, rows: int, folder: Path | None = None) -> None:
        self._rows = rows
        self._entries: dict[Place, _Entry] = {}
        self._end = 0
        # Without a name in any folder: it is gone when the process is.
        self._file = tempfile.TemporaryFile(dir=folder)

    @property
    def places(self) -> KeysView[Place]:
        """In the order in which they were first written."""
        return self._entries.keys()

    def write(self, place: Place, rows: Tensor, values: Tensor) -> None:
        """`rows` int64 [n], ascending where they follow each other; values [n, …].

        Raises ValueError where a place changes its shape or dtype.
        """
        if not len(rows):
            return  # a pass without any of the sample's rows
        values = values.detach().cpu().contiguous()
        entry = self._entries.get(place)
        if entry is None:
            entry = _Entry(self._end, tuple(values.shape[1:]), values.dtype)
            self._entries[place] = entry
            self._end += self._rows * entry.row_bytes
        if (entry.shape, entry.dtype) != (tuple(values.shape[1:]), values.dtype):
            raise ValueError(f"{place.key} was {entry.shape} {entry.dtype} before")
        data = memoryview(values.view(torch.uint8).numpy().reshape(-1).data)
        size, numbers, start = entry.row_bytes, rows.tolist(), 0
        for end in range(1, len(numbers) + 1):
            # Rows that follow each other are written together.
            if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
                at = entry.offset + numbers[start] * size
                os.pwrite(self._file.fileno(), data[start * size : end * size], at)
                start = end

    def read(self, place: Place) -> Tensor:
        entry = self._entries[place]
        size = self._rows * entry.row_bytes
        data = bytearray(size)
        # Rows behind the last one written are not in the file.
        os.preadv(self._file.fileno(), [data], entry.offset)
        return torch.frombuffer(data, dtype=entry.dtype).reshape(self._rows, *entry.shape)

    def dtype(self, place: Place) -> torch.dtype:
        """Raises KeyError."""
        return self._entries[place].dtype

    def read_rows(self, place: Place, rows: Tensor) -> Tensor:
        """[n, …], read without the rows between them. Raises KeyError."""
        entry, numbers = self._entries[place], rows.tolist()
        data = bytearray(len(numbers) * entry.row_bytes)
        into, size, start = memoryview(data), entry.row_bytes, 0
        for end in range(1, len(numbers) + 1):
            if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
                at = entry.offset + numbers[start] * size
                os.preadv(self._file.fileno(), [into[start * size : end * size]], at)
                start = end
        if not data:
            return torch.empty((len(numbers), *entry.shape), dtype=entry.dtype)
        return torch.frombuffer(data, dtype=entry.dtype).reshape(len(numbers), *entry.shape)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
