"""Which program of an attention kernel takes what, and where keys and values lie, by strides.

In: lengths of a batch, keys, values, perhaps a block table. Out: int32 tables, kernel arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.triton_kernels.launch import ALIGNMENT, aligned

# Of a program's row of the table: the first of its query rows or keys; where the sequence begins in
# q and how many queries it has; keys before its first query; where it begins in k; its number.
COLUMNS = 6


@dataclass(frozen=True, slots=True)
class Batch:
    """Lengths on the host. A row of a sequence is query · group + head of the group."""

    starts: tuple[int, ...]  # [B + 1] in q
    lengths: tuple[int, ...]  # [B] of the keys
    group: int  # query heads of a key head

    def by_rows(self, count: int) -> list[list[int]]:
        """A program per `count` rows of a sequence."""
        found = []
        for sequence, (asked, place) in enumerate(self._places()):
            for first in range(0, asked * self.group, count):
                found.append([first, *place, sequence])
        return found

    def by_keys(self, count: int) -> list[list[int]]:
        """A program per `count` keys of a sequence, from position 0."""
        found = []
        for sequence, (_, place) in enumerate(self._places()):
            for first in range(0, self.lengths[sequence], count):
                found.append([first, *place, sequence])
        return found

    def _places(self) -> Iterator[tuple[int, list[int]]]:
        end = 0
        for i, length in enumerate(self.lengths):
            asked = self.starts[i + 1] - self.starts[i]
            yield asked, [self.starts[i], asked, length - asked, end]
            end += length


def batch_of(q: Tensor, k: Tensor, cu_seqlens_q: Tensor, seqlens_k: Tensor) -> Batch:
    return Batch(tuple(cu_seqlens_q.tolist()), tuple(seqlens_k.tolist()), q.shape[1] // k.shape[-2])


def table(programs: list[list[int]], device: torch.device) -> Tensor:
    """[programs, COLUMNS] int32 on the device."""
    return torch.tensor(programs, dtype=torch.int32).reshape(-1, COLUMNS).to(device)


def key_arguments(k: Tensor, v: Tensor, block_table: Tensor | None) -> Mapping[str, Any]:
    """Keys and values where they lie: pages are not copied, unless they are not aligned."""
    if block_table is None:
        k, v = aligned(k), aligned(v)
        pages, width = k.new_zeros(1, dtype=torch.int32), 0
        k_steps, v_steps = ((0, *x.stride()) for x in (k, v))
    else:
        k, v = (_in_place(x) for x in (k, v))
        pages, width = aligned(block_table.to(torch.int32)), block_table.shape[1]
        k_steps, v_steps = k.stride(), v.stride()
    names = ("page", "place", "head", "step")
    return {
        **{"k_ptr": k, "v_ptr": v, "pages_ptr": pages, "pages_width": width},
        "page_size": 1 if block_table is None else k.shape[1],
        **{f"k_{name}": step for name, step in zip(names, k_steps, strict=True)},
        **{f"v_{name}": step for name, step in zip(names, v_steps, strict=True)},
        "PAGED": block_table is not None,
    }


def _in_place(x: Tensor) -> Tensor:
    x = x.detach()
    return x if x.data_ptr() % ALIGNMENT == 0 else x.clone()
