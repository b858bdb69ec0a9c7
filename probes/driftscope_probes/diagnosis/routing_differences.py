"""Where two sides sent a token to other experts: the one pass that all routing numbers share.

In: Tokens and the expert ids of both sides. Out: RouteDifferences. In blocks of tokens, and only
rows that are not equal as they stand are sorted. Free of torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftscope_probes.errors import TraceError
from driftscope_probes.mismatch.number import BoolArray, FloatArray, IntArray
from driftscope_probes.tokens import Tokens

Routes: TypeAlias = NDArray[np.integer[Any]]
#: Ids of one block and side: 4 MB as int32, which stays in the cache of a core.
BLOCK_IDS = 2**20
#: Cells of a heat map that are still told apart on a phone's width.
MOST_BINS = 32


@dataclass(frozen=True, slots=True, eq=False)
class RouteDifferences:
    """Choices: one token in one layer. Tokens count where they are unmasked and both sides have a
    route for them; the others are 0 in every array [tokens].
    """

    k: int  # experts of a choice
    layers: IntArray  # [layers] indices of those that route; the others hold no choice at all
    counted: BoolArray  # [tokens]
    without_route: int  # unmasked tokens for which a side has no route
    flips: IntArray  # [tokens] layers whose sets of experts differ
    overlap: FloatArray  # [tokens] sum over the layers of |A∩B| / max(|A|, |B|)
    layer_flips: IntArray  # [layers]
    layer_reordered: IntArray  # [layers] same set, not in the same order
    layer_overlap: FloatArray  # [layers] sum over the counted tokens
    bin_width: int  # tokens; a power of two, so that chunk borders are borders of bins
    bin_tokens: IntArray  # [bins] counted tokens by their place in the sequence
    bin_flips: IntArray  # [layers, bins]

    @property
    def tokens(self) -> int:
        return int(np.count_nonzero(self.counted))


def checked_routes(name: str, routes: ArrayLike, tokens: int) -> Routes:
    """[tokens, layers, k] integers, -1 where no route was captured. Raises TraceError."""
    try:
        array = np.asarray(routes)
    except (ValueError, TypeError) as error:  # ragged lists, tensors of a dtype numpy lacks
        raise TraceError(
            f"{name} is not an array: {error}", remedy=f"give {name} as a numpy array of integers."
        ) from error
    fits = array.ndim == 3 and array.shape[0] == tokens and min(array.shape[1:]) > 0
    if not fits or not np.issubdtype(array.dtype, np.integer):
        raise TraceError(
            f"{name} has shape {list(array.shape)} and dtype {array.dtype}; accepted are integers "
            f"of shape [{tokens}, layers, k].",
            remedy="give the ids of the k experts of every token and layer, -1 for no route.",
        )
    return array


def comparable(rollout: Routes, trainer: Routes) -> str | None:
    """What keeps two checked sides from being compared, as a sentence."""
    if rollout.shape == trainer.shape:
        return None
    sides = [f"{array.shape[1]} layers of {array.shape[2]} experts" for array in (rollout, trainer)]
    return f"routed_experts has {sides[0]}, trainer_routed_experts {sides[1]}."


def place_in_sequence(tokens: Tokens) -> IntArray:
    """[tokens] index from 0 in the token's own sequence; masked tokens count too."""
    lengths = np.diff(tokens.cu_seqlens)
    return np.arange(tokens.rollout.size) - np.repeat(tokens.cu_seqlens[:-1], lengths)


def bin_width(longest: int) -> int:
    """The least power of two with which sequences up to `longest` tokens need MOST_BINS bins."""
    return 1 << max(0, -(-longest // MOST_BINS) - 1).bit_length()


def routing_layers(routes: Routes) -> BoolArray:
    """[layers] False where no token has a choice: -1 in all of them, or (as vLLM fills the dense
    layers of a mixture) one and the same row that names an expert twice. If that holds for every
    layer it is no property of layers, and all are kept.
    """
    if not routes.shape[0]:
        return np.ones(routes.shape[1], np.bool_)
    first = routes[0]
    # Most layers differ within the first tokens: only those that do not are read as a whole.
    unused = np.zeros(routes.shape[1], np.bool_)
    for layer in np.flatnonzero(names_twice(first) | (first < 0).any(-1)):
        row = first[layer]
        unused[layer] = bool((routes[:64, layer] == row).all() and (routes[:, layer] == row).all())
    return np.ones_like(unused) if unused.all() else ~unused


def names_twice(rows: Routes) -> BoolArray:
    """[…] of rows […, k]: whether a row names an expert twice, which no choice of k does."""
    twice = np.zeros(rows.shape[:-1], np.bool_)
    for column in range(1, rows.shape[-1]):
        for before in range(column):
            twice |= rows[..., column] == rows[..., before]
    return twice


def route_differences(tokens: Tokens, rollout: ArrayLike, trainer: ArrayLike) -> RouteDifferences:
    """rollout, trainer: [tokens, layers, k] integer ids, -1 where no route was captured. Raises
    TraceError where the shapes do not fit each other or the tokens.
    """
    size = tokens.rollout.size
    first = checked_routes("routed_experts", rollout, size)
    second = checked_routes("trainer_routed_experts", trainer, size)
    fault = comparable(first, second)
    if fault is not None:
        raise TraceError(fault, remedy="record the same layers and k on both sides.")
    used = np.flatnonzero(routing_layers(first) & routing_layers(second))
    layers, k = used.size, first.shape[2]
    place = place_in_sequence(tokens)
    width = bin_width(int(place.max()) + 1 if size else 1)
    bins = int(place.max()) // width + 1 if size else 1
    takes_part = tokens.takes_part
    counted = np.zeros(size, np.bool_)
    flips, overlap = np.zeros(size, np.int64), np.zeros(size)
    layer_flips, layer_reordered = np.zeros(layers, np.int64), np.zeros(layers, np.int64)
    layer_lost, bin_flips = np.zeros(layers), np.zeros(layers * bins, np.int64)
    step = max(1, BLOCK_IDS // (layers * k or 1))
    for start in range(0, size, step):
        block = slice(start, start + step)
        a, b = _same_dtype(_of_layers(first[block], used), _of_layers(second[block], used))
        here = takes_part[block] & captured(a) & captured(b)
        counted[block] = here
        token, layer, x, y = _unequal_rows(a, b, here)
        kept = _overlap(x, y)
        flipped = kept < 1.0
        layer_reordered += np.bincount(layer[~flipped], minlength=layers)
        token, layer, lost = token[flipped], layer[flipped], 1.0 - kept[flipped]
        flips[block] = np.bincount(token, minlength=here.size)
        overlap[block] = here * layers - np.bincount(token, lost, minlength=here.size)
        layer_flips += np.bincount(layer, minlength=layers)
        layer_lost += np.bincount(layer, lost, minlength=layers)
        cell = layer * bins + place[block][token] // width
        bin_flips += np.bincount(cell, minlength=layers * bins)
    everything = int(np.count_nonzero(counted))
    return RouteDifferences(
        k=k,
        layers=used,
        counted=counted,
        without_route=int(np.count_nonzero(takes_part)) - everything,
        flips=flips,
        overlap=overlap,
        layer_flips=layer_flips,
        layer_reordered=layer_reordered,
        layer_overlap=everything - layer_lost,
        bin_width=width,
        bin_tokens=np.bincount(place[counted] // width, minlength=bins),
        bin_flips=bin_flips.reshape(layers, bins),
    )


def captured(rows: Routes) -> BoolArray:
    """[tokens] of rows [tokens, layers, k]: whether no id is negative."""
    if not rows.size:  # no layer routes on both sides
        return np.zeros(rows.shape[0], np.bool_)
    if np.issubdtype(rows.dtype, np.unsignedinteger):
        return np.ones(rows.shape[0], np.bool_)
    found: BoolArray = rows.reshape(rows.shape[0], -1).min(axis=1) >= 0
    return found


def _of_layers(rows: Routes, used: IntArray) -> Routes:
    return rows if used.size == rows.shape[1] else rows[:, used]


def _same_dtype(a: Routes, b: Routes) -> tuple[Routes, Routes]:
    """numpy compares uint64 with int64 as float64, which would round."""
    if a.dtype == b.dtype:
        return a, b
    return a.astype(np.int64), b.astype(np.int64)


def _unequal_rows(
    a: Routes, b: Routes, here: BoolArray
) -> tuple[IntArray, IntArray, Routes, Routes]:
    """Token, layer and both sorted rows [rows, k] of choices that are not equal as they stand."""
    unequal = np.zeros(a.shape[:2], np.bool_)
    for column in range(a.shape[2]):
        unequal |= a[..., column] != b[..., column]
    unequal &= here[:, None]
    token, layer = np.nonzero(unequal)
    return token, layer, np.sort(a[token, layer], axis=-1), np.sort(b[token, layer], axis=-1)


def _overlap(x: Routes, y: Routes) -> FloatArray:
    """[rows] |A∩B| / max(|A|, |B|) of sorted rows [rows, k]; |A| is k unless ids repeat."""
    kept = np.ones(x.shape[0])
    other = np.flatnonzero((x != y).any(axis=-1))
    x, y = x[other], y[other]
    shared = np.zeros(other.size, np.int64)
    for column in range(x.shape[1]):
        in_both = (y == x[:, column : column + 1]).any(axis=-1)
        if column:  # an id that repeats is counted once
            in_both &= x[:, column] != x[:, column - 1]
        shared += in_both
    kept[other] = shared / np.maximum(_distinct(x), _distinct(y))
    return kept


def _distinct(ordered: Routes) -> IntArray:
    found: IntArray = 1 + np.count_nonzero(ordered[:, 1:] != ordered[:, :-1], axis=-1)
    return found
