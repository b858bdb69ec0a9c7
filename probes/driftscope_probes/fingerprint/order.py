"""Which products of a unit join the sum together, and in which order: its tree, from outside.

Idea: FPRev (arXiv 2411.00442). Leaves i and j hold +big and −big, all others one. What is added to
big is swallowed until −big cancels it, so the result counts the leaves outside the smallest sum
that holds both. Formats too narrow for big to swallow one are read by c alone (`_by_halves`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftscope_kernels.compare_ops.tree_shape import Branch, Node, Tree
from driftscope_kernels.compare_ops.trees import UnreadableTreeError, grown_tree
from driftscope_probes.fingerprint.unit import Probe, Unit

#: Powers of two between big and one where the formats reach: more than fp64 has bits of significand
#: and leaves of a unit together.
WANTED_REACH: Final = 80
#: The least that swallows ones in an accumulator of up to 26 bits with sums of up to 64 ones.
LEAST_REACH: Final = 33


@dataclass(frozen=True, slots=True)
class Order:
    tree: Tree
    group: int  # products that join the running sum as one
    at_once: int  # of them, those that are added before anything is rounded
    c_at_once: bool  # and c with them
    exact: bool  # nothing was lost between a huge number and its negative within a group


def read_order(unit: Unit, result_bits: int) -> Order:
    """Of a unit that adds to c. `result_bits`: after the leading one, that a result holds.

    Raises UnreadableTreeError.
    """
    reach = _reach(unit)
    if reach is None:
        return _by_halves(unit, result_bits)
    met = _met(unit, *reach)
    with_first = met[0, 1:].tolist()
    # Each of three leaves in a sum of two with each other: no tree, but a sum without loss.
    if unit.leaves > 2 and met[0, 1] == met[0, 2] == met[1, 2] == 2:
        return _exact_order(with_first)
    tree = grown_tree(unit.leaves, lambda pairs: [int(met[pair]) for pair in pairs])
    smallest = int(met[1, met[1] > 0].min())  # of the first product
    c_at_once = bool(met[0, 1] == smallest)
    group = with_first.count(min(with_first))
    return Order(tree, group, smallest - c_at_once, c_at_once, exact=False)


def _reach(unit: Unit) -> tuple[int, int] | None:
    """Exponents of big and one; None where the formats are too narrow."""
    for normal in (True, False):
        low, high = unit.leaf_range(normal=normal)
        if high - low >= LEAST_REACH:
            return high, max(low, high - WANTED_REACH)
    return None


def _met(unit: Unit, big: int, one: int) -> NDArray[np.int64]:
    """[leaves, leaves]: how many leaves the smallest sum has that holds both; 0 of one alone."""
    pairs = list(combinations(range(unit.leaves), 2))
    probes: list[Probe] = [{plus: 2.0**big, minus: -(2.0**big)} for plus, minus in pairs]
    counts = unit.sums(probes, rest=2.0**one) / 2.0**one
    if not bool(np.all((counts == counts.round()) & (counts >= 0) & (counts < unit.leaves))):
        raise UnreadableTreeError(
            "the order of additions cannot be read: sums of ones between a huge number and its "
            f"negative are no counts ({counts[0]:g} of {unit.leaves})"
        )
    met = np.zeros((unit.leaves, unit.leaves), np.int64)
    for pair, count in zip(pairs, counts, strict=True):
        met[pair] = met[pair[::-1]] = unit.leaves - int(count)
    return met


def _exact_order(with_first: Sequence[int]) -> Order:
    """Groups in the order in which they join, by what c had swallowed when they came."""
    levels = sorted(set(with_first))
    groups = [[leaf for leaf, size in enumerate(with_first, 1) if size == at] for at in levels]
    return Order(_chain_of(groups), len(groups[0]), len(groups[0]), c_at_once=True, exact=True)


def _chain_of(groups: Sequence[Sequence[int]]) -> Tree:
    total: Branch = 0
    for group in groups:
        total = Node.of((total, *group))
    return Tree(total)


def _by_halves(unit: Unit, result_bits: int) -> Order:
    """c is so large that one product is half of its last bit, and two are one bit of it: they
    count if they are added to each other before the sum is rounded."""
    c = 2.0 ** (result_bits + 1)
    probes: list[Probe] = [{0: c, 1: 1.0, other: 1.0} for other in range(2, unit.leaves)]
    together = unit.sums(probes) > c
    group = 1 + int(together.sum())
    if not bool(together[: group - 1].all()) or unit.products % group:
        raise UnreadableTreeError(
            f"products of {unit.a.name} and {unit.b.name} span too few powers of two to tell in "
            "which order they are added"
        )
    starts = range(1, unit.leaves, group)
    tree = _chain_of([range(start, start + group) for start in starts])
    return Order(tree, group, group, c_at_once=True, exact=False)
