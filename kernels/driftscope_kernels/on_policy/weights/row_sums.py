"""Digests at the speed of memory: a sum of bits times odd weights, the same in every layout.

In: a tensor, or a weight in the packed form of `vllm_plugin.linear`. Out: RowSums, one uint32 per
row, and from a range of rows 64 bits. A row is read as 32-bit words w[j]: Σ w[j] · b[j] mod 2^32
with odd b[j]; a tensor is Σ row[n] · a[n] mod 2^64 with odd a[n]. Rows keep q, k and v of a merged
weight apart, and no packed weight has to be unpacked.

A change of one word is always seen, since an odd factor keeps every difference. Several changes in
one row cancel with a probability of 2^-16 (all in the upper halves of words) to 2^-32, and an even
number of flipped signs in upper halves always does; a tensor is missed only where every changed row
cancels. That tells apart versions of weights; it is no defence against who wants to deceive it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from driftscope_kernels.vllm_plugin.linear import BITS, PANEL, PackedLinear

Words = NDArray[Any]  # int32
#: Rows that are cast at once: 512 of 4,096 float32 are 8 MiB, about a second-level cache.
CAST_ROWS = 512
#: Panels whose pairs of 16-bit rows are taken apart at once: 16 of 1,024 columns are 1 MiB.
PAIRED_PANELS = 16


@dataclass(frozen=True, slots=True)
class RowSums:
    """Of a tensor as rows over its last dimension, or of single numbers for a vector."""

    sums: NDArray[np.uint32]
    dtype: torch.dtype

    def digest(self, first: int = 0, end: int | None = None) -> int:
        """64 bits over a range of rows."""
        rows = self.sums[first:end].astype(np.uint64)
        return int((rows * _row_weights(len(rows))).sum(dtype=np.uint64))


@lru_cache(maxsize=64)
def _mixed(count: int, seed: int) -> NDArray[np.uint64]:
    """splitmix64 of 0, 1, 2 …"""
    with np.errstate(over="ignore"):
        z = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _row_weights(count: int) -> NDArray[np.uint64]:
    return _mixed(count, 1 << 32) | np.uint64(1)


@lru_cache(maxsize=64)
def _word_weights(count: int) -> Words:
    return ((_mixed(count, 0) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)).view(np.int32)


def of_tensor(tensor: Tensor, dtype: torch.dtype | None = None) -> RowSums:
    """`dtype`: what the tensor is rounded to first; None: its own."""
    plain, dtype = tensor.detach(), dtype or tensor.dtype
    if plain.dim() < 2:
        words = _bits(plain.reshape(-1).to(dtype)).numpy().astype(np.int32)
        return _row_sums(words * _word_weights(1), dtype)
    rows = plain.reshape(-1, plain.shape[-1])
    if dtype == rows.dtype:
        return _row_sums(_weighed(rows), dtype)
    parts = [
        _weighed(rows[first : first + CAST_ROWS].to(dtype))
        for first in range(0, len(rows), CAST_ROWS)
    ]
    return _row_sums(np.concatenate(parts), dtype)


def of_packed(packed: PackedLinear) -> RowSums:
    panels, rows = packed.panels(), packed.shape[0]
    words = _bits(panels)
    if panels.element_size() == 4:
        return _panel_sums(words.squeeze(-1).numpy(), rows, panels.dtype)
    if panels.shape[-1] == 2:
        return _panel_sums(words.view(torch.int32).squeeze(-1).numpy(), rows, panels.dtype)
    pairs = words.squeeze(-1).view(torch.int32).numpy()
    parts = [
        _pair_words(pairs[first : first + PAIRED_PANELS])
        for first in range(0, len(pairs), PAIRED_PANELS)
    ]
    return _row_sums(np.concatenate(parts).reshape(-1)[:rows], panels.dtype)


def _panel_sums(words: Words, rows: int, dtype: torch.dtype) -> RowSums:
    return _row_sums(_panel_words(words).reshape(-1)[:rows], dtype)


def _panel_words(words: Words) -> Words:
    """[panels, words of a row, PANEL] → [panels, PANEL]."""
    assert words.shape[-1] == PANEL, words.shape
    found: Words = np.einsum("pkr,k->pr", words, _word_weights(words.shape[1]))
    return found


def _pair_words(pairs: Words) -> Words:
    """[panels, K, PANEL / 2], an even row in the lower half and an odd one in the upper:
    [panels, PANEL]. A plain row's word has number 2j in its lower half, 2j + 1 in its upper."""
    width = pairs.shape[1]
    factors = np.repeat(_word_weights(-(-width // 2)), 2)[:width]
    factors[1::2] <<= 16
    even = np.einsum("pkr,k->pr", pairs & 0xFFFF, factors)
    odd = np.einsum("pkr,k->pr", (pairs.view(np.uint32) >> 16).view(np.int32), factors)
    found: Words = np.stack([even, odd], axis=-1).reshape(len(pairs), PANEL)
    return found


def _weighed(rows: Tensor) -> Words:
    if rows.element_size() == 2:
        if rows.shape[1] % 2:
            rows = torch.nn.functional.pad(rows, (0, 1))
        words = _bits(rows.contiguous()).view(torch.int32)
    else:
        words = _bits(rows.contiguous())
    found: Words = np.einsum("nk,k->n", words.numpy(), _word_weights(words.shape[1]))
    return found


def _row_sums(sums: Words, dtype: torch.dtype) -> RowSums:
    return RowSums(np.ascontiguousarray(sums).view(np.uint32), dtype)


def _bits(tensor: Tensor) -> Tensor:
    return tensor.view(BITS[tensor.element_size()])


def over_all(digests: Iterable[tuple[str, int]]) -> str:
    """One text over tensors by name: 16 hexadecimal digits."""
    whole = blake2b(digest_size=8)
    for name, digest in sorted(digests):
        whole.update(f"{name}:{digest:x}\n".encode())
    return whole.hexdigest()
