"""Linear layers that are wrong: a shard in another place, no bias, another scale, an adapter.

In: the weights of one side, and what the other side gave. Out: variants.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.linear_ways import Way, plain, variant
from driftscope_kernels.compare_ops.parameters import LinearParameters
from driftscope_kernels.compare_ops.variant import Inputs, Outputs, Variant

#: Blocks that shards, fused projections and kv-heads come in.
PARTS: Final = (2, 4, 8)
#: Columns that are matched against each other; of a vocabulary that would be billions of pairs.
MOST_MATCHED: Final = 4096
#: Tokens that tell columns apart.
LEAST_TOKENS, MOST_TOKENS = 4, 64
#: A column is another one if they point the same way up to rounding to bf16.
MATCHED_COSINE: Final = 0.999
#: A scale is one if the rest is as small as rounding to bf16 leaves it, and it is not rounding.
SCALE_REST, SCALE_OFF = 2.0**-6, 2.0**-7
#: An adapter's rank is at most a quarter of what the tokens could show.
RANK_SHARE: Final = 4
#: Singular values of the adapter lie this far above those of rounding.
RANK_GAP: Final = 4.0


def faults(parameters: LinearParameters) -> Iterator[Variant[LinearParameters]]:
    out, width = parameters.weight.shape
    if out == width:
        yield variant(
            "transposed",
            "weight",
            "the weight is transposed",
            "F.linear(x, w.t(), b)",
            lambda x, w, b, dtype: plain(x, w.t(), b, dtype),
        )
    if parameters.bias is not None:
        yield variant(
            "no_bias",
            "weight",
            "the bias is left out",
            "F.linear(x, w)",
            lambda x, w, b, dtype: plain(x, w, None, dtype),
        )
        yield variant(
            "bias_twice",
            "formula",
            "the bias is added twice",
            "F.linear(x, w, b) + b",
            lambda x, w, b, dtype: plain(x, w, None if b is None else b + b, dtype),
        )
    for factor in (2.0, 0.5):
        yield variant(
            f"times_{factor:g}",
            "formula",
            f"the result is {factor:g} times as large",
            f"{factor:g} * F.linear(x, w, b)",
            _times(factor),
        )
    for parts in PARTS:
        yield from _of_blocks(parts, out, width)


def _times(factor: float) -> Way:
    return lambda x, w, b, dtype: factor * plain(x, w, b, dtype)


def _of_blocks(parts: int, out: int, width: int) -> Iterator[Variant[LinearParameters]]:
    if out % parts == 0:
        for one in range(parts):
            yield variant(
                f"zero_rows_{one + 1}_of_{parts}",
                "weight",
                f"part {one + 1} of {parts} of the weight's rows is missing",
                f"w.chunk({parts})[{one}].zero_()",
                _with_zero(parts, one),
            )
        for name, words, order in _orders(parts, out):
            yield variant(
                f"rows_{name}",
                "weight",
                f"the weight's rows are in another order: {words}",
                f"F.linear(x, w[order], b[order])  # {words}",
                _with_rows(order),
            )
    if width % parts == 0:
        for name, words, order in _orders(parts, width):
            yield variant(
                f"columns_{name}",
                "weight",
                f"the weight's columns are in another order: {words}",
                f"F.linear(x, w[:, order], b)  # {words}",
                _with_columns(order),
            )


def _orders(parts: int, size: int) -> Iterator[tuple[str, str, Tensor]]:
    """Name, words, and where each place takes its row from."""
    blocks = torch.arange(size).view(parts, size // parts)
    for left in range(parts):
        for right in range(left + 1, parts):
            swapped = blocks.clone()
            swapped[[left, right]] = blocks[[right, left]]
            words = f"parts {left + 1} and {right + 1} of {parts} swapped"
            yield f"swapped_{left + 1}_{right + 1}_of_{parts}", words, swapped.flatten()
    if size == parts:  # parts of one row: what follows is the identity, or a swap
        return
    yield f"interleaved_{parts}", f"{parts} parts interleaved", blocks.t().flatten()
    apart = torch.arange(size).view(size // parts, parts).t().flatten()
    if size // parts != parts:  # else it is the same order
        yield f"uninterleaved_{parts}", f"every {parts}th together", apart
    if parts > 2:
        yield f"reversed_{parts}", f"{parts} parts reversed", blocks.flip(0).flatten()
        yield f"rolled_{parts}", f"{parts} parts moved on by one", blocks.roll(1, 0).flatten()


def _with_zero(parts: int, one: int) -> Way:
    def way(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        missing = weight.clone()
        missing.chunk(parts)[one].zero_()
        return plain(x, missing, bias, dtype)

    return way


def _with_rows(order: Tensor) -> Way:
    def way(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        return plain(x, weight, bias, dtype)[:, order]

    return way


def _with_columns(order: Tensor) -> Way:
    def way(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        return plain(x, weight[:, order], bias, dtype)

    return way


def fitted(
    inputs: Inputs, parameters: LinearParameters, seen: Tensor
) -> Iterator[Variant[LinearParameters]]:
    """`seen` [tokens, out] is what the other side gave for these inputs."""
    ours = plain(inputs["x"], parameters.weight, parameters.bias, torch.float32).double()
    theirs = seen.double()
    yield from _scale(ours, theirs)
    yield from _row_order(ours, theirs)
    yield from _adapter(ours, theirs)


def _scale(ours: Tensor, theirs: Tensor) -> Iterator[Variant[LinearParameters]]:
    energy = float(ours.square().sum())
    if energy == 0.0:
        return
    factor = float((ours * theirs).sum()) / energy
    rest = float((theirs - factor * ours).square().sum())
    if abs(factor - 1) < SCALE_OFF or rest > SCALE_REST**2 * energy * factor**2:
        return
    yield variant(
        "scaled",
        "formula",
        f"the result is {factor:.4g} times as large",
        f"{factor:.4g} * F.linear(x, w, b)",
        lambda x, w, b, dtype: (factor * plain(x, w, b, torch.float32)).to(dtype),
    )


def _row_order(ours: Tensor, theirs: Tensor) -> Iterator[Variant[LinearParameters]]:
    tokens, width = ours.shape
    if tokens < LEAST_TOKENS or width > MOST_MATCHED:
        return
    unit = [
        values[:MOST_TOKENS] / values[:MOST_TOKENS].norm(dim=0).clamp_min(1e-300)
        for values in (ours, theirs)
    ]
    cosine, order = (unit[0].t() @ unit[1]).max(dim=0)
    everywhere = torch.arange(width)
    moved = int((order != everywhere).sum())
    if moved == 0 or float(cosine.min()) < MATCHED_COSINE or len(order.unique()) < width:
        return
    yield variant(
        "rows_reordered",
        "weight",
        f"{moved} of {width} rows of the weight stand in another place, {_moves(order)}",
        "F.linear(x, w[order], b[order])",
        _with_rows(order),
    )


def _moves(order: Tensor) -> str:
    """The first block that moved."""
    offsets = order - torch.arange(len(order))
    start = int((offsets != 0).nonzero()[0])
    same = (offsets[start:] != offsets[start]).nonzero()
    length = int(same[0]) if len(same) else len(order) - start
    return f"rows {start} to {start + length - 1} taken from {int(order[start])} on"


def _adapter(ours: Tensor, theirs: Tensor) -> Iterator[Variant[LinearParameters]]:
    """A difference of low rank over all columns: what an adapter adds."""
    most = min(len(ours), MOST_TOKENS, ours.shape[1]) // RANK_SHARE
    if most < 1:
        return
    gap = (theirs - ours)[:MOST_TOKENS]
    values = torch.linalg.svdvals(gap)
    ratios = values[:most] / values[1 : most + 1].clamp_min(1e-300)
    rank = int(ratios.argmax()) + 1
    spread = float((gap.abs().amax(0) > 0).double().mean())
    if float(ratios.max()) < RANK_GAP or spread < 0.5:
        return
    left, scales, right = torch.linalg.svd(theirs - ours, full_matrices=False)
    added = left[:, :rank] * scales[:rank] @ right[:rank]

    def run(inputs: Inputs, parameters: LinearParameters, dtype: torch.dtype) -> Outputs:
        y = plain(inputs["x"], parameters.weight, parameters.bias, torch.float32)
        return ((y.double() + added).to(dtype),)

    yield Variant(
        "adapter",
        "weight",
        f"the difference has rank {rank}, as an adapter that one side leaves out",
        f"F.linear(x, w + B @ A)  # A [{rank}, in], B [out, {rank}]",
        run,
    )
