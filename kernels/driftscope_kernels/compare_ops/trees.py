"""The order in which a linear layer adds along K, read from outside.

Idea: FPRev (arXiv 2411.00442). Leaves i and j hold +big and −big, all others one. What is added to
big is swallowed until −big cancels it, so the result counts the leaves outside the smallest subtree
that holds both i and j. In: a linear layer as a function. Out: its tree, and sums in its order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.tree_shape import Branch, Node, Tree, spine
from driftscope_kernels.reference.arithmetic import Float32, fma

#: x [rows, K] and weight [columns, K] of one dtype to [rows, columns], which may be wider.
Linear = Callable[[Tensor, Tensor], Tensor]
#: Of pairs of leaves: how many leaves the smallest sum has that holds both.
Sizes = Callable[[Sequence[tuple[int, int]]], list[int]]

#: Integers up to here are exact in bf16, which has 8 bits of significand.
LOW_PRECISION_LEAVES: Final = 256
#: How far results count: 2^bits of significand; of float32 less, so that big swallows all.
MOST_LEAVES: Final = {
    torch.float32: 2**22,
    torch.float16: 2**11,
    torch.bfloat16: LOW_PRECISION_LEAVES,
}
#: Kernels choose their tiles by the number of columns; layers of real models have at least these.
COLUMNS: Final = 256


@dataclass(frozen=True, slots=True)
class Mask:
    """What the leaves hold. big·other must swallow every sum of unit·other in a float32."""

    unit: float
    big: float
    other: float  # the factor that every leaf is multiplied with, where the op multiplies


#: fp16 ends at 65,504: its big is 2¹⁵, its unit the smallest number, and the factor lifts both, so
#: that 2³⁹ lies between them in the accumulator.
MASKS: Final = {
    torch.float32: Mask(1.0, 2.0**100, 1.0),
    torch.bfloat16: Mask(1.0, 2.0**100, 1.0),
    torch.float16: Mask(2.0**-24, 2.0**15, 2.0**10),
}


class UnreadableTreeError(ValueError):
    """The results were no counts: no one tree of float32 additions explains them."""


def read_tree(
    linear: Linear, k: int, dtype: torch.dtype, rows: int, columns: int = COLUMNS
) -> Tree:
    """The tree of `rows` rows at once, as its last row and all columns add.

    Kernels choose by shape: give the `rows` and `columns` of the layer in question. Supposes that
    all columns add in one order, and calls `linear` a few times per K / columns. Raises
    UnreadableTreeError.
    """
    return grown_tree(k, _Sizes(linear, k, dtype, rows, columns).of)


def grown_tree(leaves: int, sizes: Sizes) -> Tree:
    """The tree of which `sizes` tells, asked for all pairs of a level at once."""
    found: list[_Grown] = []
    level = [_Unknown(list(range(leaves)), leaves + 1, found)]
    while level:
        level = _next_level(level, sizes)
    (root,) = found
    return Tree(root.branch())


@dataclass(frozen=True, slots=True)
class _Grown:
    """A sum that grows from one leaf; what joins it at each step is filled in level by level."""

    start: int
    steps: list[list[_Grown]]

    def branch(self) -> Branch:
        total: Branch = self.start
        for step in self.steps:
            total = Node.of((total, *(other.branch() for other in step)))
        return total


@dataclass(frozen=True, slots=True)
class _Unknown:
    """Leaves that meet another in a sum of `terms`, as one branch, or as several of one node."""

    leaves: list[int]
    terms: int
    into: list[_Grown]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Of the leaf in the middle: of a chain, whichever way it runs, at most half of the leaves
        are then left to the next level, and levels stay few."""
        start = self.leaves[len(self.leaves) // 2]
        return [(start, other) for other in self.leaves if other != start]


def _next_level(level: list[_Unknown], sizes: Sizes) -> list[_Unknown]:
    """What is known after all pairs of a level were asked together."""
    terms = iter(sizes([pair for unknown in level for pair in unknown.pairs]))
    following: list[_Unknown] = []
    for unknown in level:
        met: dict[int, list[int]] = {}
        for _, leaf in unknown.pairs:
            met.setdefault(next(terms), []).append(leaf)
        beside = met.pop(unknown.terms, None)
        if beside:
            following.append(_Unknown(beside, unknown.terms, unknown.into))
        grown = _Grown(unknown.leaves[len(unknown.leaves) // 2], [[] for _ in met])
        unknown.into.append(grown)
        for step, size in zip(grown.steps, sorted(met), strict=True):
            following.append(_Unknown(met[size], size, step))
    return following


class _Sizes:
    """Asks how large sums are."""

    def __init__(self, linear: Linear, k: int, dtype: torch.dtype, rows: int, columns: int) -> None:
        self._linear, self._k, self._dtype = linear, k, dtype
        self._mask = MASKS[dtype]
        self._columns = columns
        self._x = torch.full((rows, k), self._mask.other, dtype=dtype)

    def of(self, pairs: Sequence[tuple[int, int]]) -> list[int]:
        """For each pair the leaves of the smallest subtree that holds both."""
        found: list[int] = []
        for start in range(0, len(pairs), self._columns):
            found.extend(self._of_columns(pairs[start : start + self._columns]))
        return found

    def _of_columns(self, pairs: Sequence[tuple[int, int]]) -> list[int]:
        """A call per window of leaves that hold one, the others zero: the counts add up."""
        limit = MOST_LEAVES[self._dtype]
        outside = torch.zeros(len(pairs), dtype=torch.int64)
        for start in range(0, self._k, limit):
            weight = self._weight(pairs, slice(start, start + limit))
            result = self._linear(self._x, weight)[-1, : len(pairs)]
            outside += self._counted(result, min(limit, self._k - start))
        return (self._k - outside).tolist()

    def _weight(self, pairs: Sequence[tuple[int, int]], window: slice) -> Tensor:
        weight = torch.zeros(self._columns, self._k)
        weight[:, window] = self._mask.unit
        slots = torch.arange(len(pairs))
        plus, minus = torch.tensor(pairs).T
        weight[slots, plus], weight[slots, minus] = self._mask.big, -self._mask.big
        return weight.to(self._dtype)

    def _counted(self, result: Tensor, most: int) -> Tensor:
        counts = result.double() / (self._mask.unit * self._mask.other)
        whole = counts.round()
        if not bool(torch.isfinite(counts).all()) or bool(
            ((counts != whole) | (whole < 0) | (whole > most)).any()
        ):
            raise UnreadableTreeError(
                "the order of additions cannot be read: sums of ones between a huge number and its "
                f"negative are no counts ({float(counts[0]):g} of {most}), so the accumulator "
                "is not float32, or more than one order is at work"
            )
        return whole.long()


def summed(tree: Tree, x: Tensor, weight: Tensor, *, fused: bool = True) -> Tensor:
    """x [rows, K] times weight [columns, K], float32, added in the order of the tree.

    `fused`: a term joins a sum by one fused multiply-add, as in matrix kernels; a tree cannot tell.
    Products of 16-bit numbers are exact in float32, where it makes no difference.
    """
    wide_x: Float32 = x.detach().float().numpy()
    wide_weight: Float32 = weight.detach().float().numpy()

    def joined(total: Float32, branch: Branch) -> Float32:
        if isinstance(branch, Node):
            return total + value(branch)
        if not fused:
            return total + wide_x[:, branch, None] * wide_weight[None, :, branch]
        return fma(wide_x[:, branch, None], wide_weight[None, :, branch], total)

    def value(branch: Branch) -> Float32:
        start, steps = spine(branch)
        total: Float32 = wide_x[:, start, None] * wide_weight[None, :, start]
        for step in steps:
            for other in step:
                total = joined(total, other)
        return total

    return torch.from_numpy(value(tree.root))
