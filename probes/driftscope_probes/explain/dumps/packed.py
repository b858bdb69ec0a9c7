"""Tensors that hold several places: q, k and v, or gate and up, in one.

In: keys with the number of features of a row. Out: for every place the key and the features that
are its own. Sizes come from the model's config, or from what else was captured: attention's output
is as wide as q.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from driftscope_probes.explain.dumps.base import GATE_UP, GROUPED_QKV, QKV
from driftscope_probes.explain.sites import Place


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a place is found."""

    key: str
    features: Tensor | slice | None = None  # None: all

    def of(self, rows: Tensor) -> Tensor:
        return rows if self.features is None else rows[:, self.features]


@dataclass(frozen=True, slots=True)
class Widths:
    """In features; None where nothing says."""

    q: int | None = None
    kv: int | None = None
    head_dim: int | None = None

    @staticmethod
    def of(config: Mapping[str, Any], widths: Mapping[str, int]) -> Widths:
        heads, kv_heads = size(config, "num_attention_heads"), size(config, "num_key_value_heads")
        head_dim, hidden = size(config, "head_dim"), size(config, "hidden_size")
        if not head_dim and heads and hidden:
            head_dim = hidden // heads
        q = _captured(widths, ("q_proj", "q_rotary", "attention"))
        kv = _captured(widths, ("k_proj", "k_rotary", "v_proj"))
        if heads and head_dim:
            q, kv = heads * head_dim, (kv_heads or heads) * head_dim
        return Widths(q, kv, head_dim)

    def __or__(self, other: Widths) -> Widths:
        return Widths(self.q or other.q, self.kv or other.kv, self.head_dim or other.head_dim)


def size(config: Mapping[str, Any], name: str) -> int | None:
    """A positive whole number of a config that somebody else wrote; None for anything else."""
    value = config.get(name)
    return value if isinstance(value, int) and value > 0 else None


def _captured(widths: Mapping[str, int], names: tuple[str, ...]) -> int | None:
    found = (width for key, width in widths.items() if key.rpartition(".")[2] in names)
    return next(found, None)


def cuts_of(widths: Mapping[str, int], known: Widths) -> tuple[dict[Place, Cut], list[str]]:
    """Where each place is, and what could not be cut, in words."""
    cuts: dict[Place, Cut] = {}
    unknown = []
    for key, width in widths.items():
        layer, _, name = key.rpartition(".")
        parts = _parts(name, width, known)
        if parts is None:
            unknown.append(f"{key}: {width} features, and nothing says which are q, k and v")
        elif not parts:
            # What an op gives is the place itself; a part of a packed tensor never replaces it.
            cuts[Place.of_key(key)] = Cut(key)
        else:
            for part, features in parts.items():
                cuts.setdefault(Place(int(layer), part), Cut(key, features))
    return cuts, unknown


def _parts(name: str, width: int, known: Widths) -> Mapping[str, Tensor | slice] | None:
    """Empty: not packed. None: packed, and not to be cut."""
    if name == GATE_UP:
        half = width // 2
        return {"gate_proj": slice(0, half), "up_proj": slice(half, width)}
    if name not in (QKV, GROUPED_QKV):
        return {}
    q, kv = known.q, known.kv
    if q is None and kv is not None:
        q = width - 2 * kv
    if q is not None and kv is None:
        kv = (width - q) // 2
    if not q or not kv or q + 2 * kv != width:
        return None
    if name == QKV:
        return {"q_proj": slice(0, q), "k_proj": slice(q, q + kv), "v_proj": slice(q + kv, width)}
    if not known.head_dim:
        return None
    return _grouped(width, q, kv, known.head_dim)


def _grouped(width: int, q: int, kv: int, head_dim: int) -> Mapping[str, Tensor | slice]:
    """Megatron: of each group of heads its queries, its key, its value."""
    groups = kv // head_dim
    of_group = torch.arange(width).reshape(groups, -1)
    queries = q // groups
    return {
        "q_proj": of_group[:, :queries].reshape(-1),
        "k_proj": of_group[:, queries : queries + head_dim].reshape(-1),
        "v_proj": of_group[:, queries + head_dim :].reshape(-1),
    }
