"""A tree of additions: its leaves are positions along K, its nodes sums of what hangs below them.

In: nested nodes. Out: the tree as text, its hash, and its order said in words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A sum of two or more; more than two where the hardware adds several at once."""

    children: tuple[Branch, ...]  # the largest first, of equal ones the one with the lowest leaf
    size: int  # leaves below
    first: int  # the lowest of them

    @staticmethod
    def of(children: Iterable[Branch]) -> Node:
        ordered = tuple(sorted(children, key=lambda child: (-size(child), first(child))))
        return Node(ordered, sum(map(size, ordered)), min(map(first, ordered)))


#: A leaf is its position along K.
Branch = Node | int


def size(branch: Branch) -> int:
    return branch.size if isinstance(branch, Node) else 1


def first(branch: Branch) -> int:
    return branch.first if isinstance(branch, Node) else branch


def spine(branch: Branch) -> tuple[int, list[tuple[Branch, ...]]]:
    """The leaf from which the largest sum grows, and what is added to it, step by step.

    What hangs beside the largest branch has at most half of the leaves, so recursion into steps
    is never deep, while a chain is as deep as K is long.
    """
    steps: list[tuple[Branch, ...]] = []
    while isinstance(branch, Node):
        steps.append(branch.children[1:])
        branch = branch.children[0]
    steps.reverse()
    # Of the innermost two either may have been first: in a chain it is the one further from the
    # third, be the chain ascending or descending.
    if len(steps) > 1 and [len(steps[0]), len(steps[1])] == [1, 1]:
        second, third = steps[0][0], steps[1][0]
        if isinstance(second, int) and isinstance(third, int):
            if abs(second - third) > abs(branch - third):
                branch, steps[0] = second, (branch,)
    return branch, steps


def leaves(branch: Branch) -> Iterator[int]:
    """In no order."""
    waiting = [branch]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Node):
            waiting.extend(one.children)
        else:
            yield one


@dataclass(frozen=True)
class Tree:
    """`root` holds every position of K once."""

    root: Branch

    @cached_property
    def text(self) -> str:
        """Brackets are sums, in the order in which they grow; `0..60:4` adds every fourth."""
        return _text(self.root)

    @cached_property
    def hash(self) -> str:
        """Equal for equal trees alone; 16 hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @cached_property
    def summary(self) -> str:
        """`chains of 192 terms, 3 of them left to right`"""
        return ", ".join(_levels(self.root))

    @property
    def leaves(self) -> int:
        return size(self.root)


def difference(left: Tree, right: Tree) -> str:
    """Where two trees part, in words; empty if they are one."""
    if left.hash == right.hash:
        return ""
    if left.leaves != right.leaves:
        return f"{left.leaves} terms against {right.leaves}"
    ours, theirs = _met(left.root, 0), _met(right.root, 0)
    for leaf in range(1, left.leaves):
        if ours[leaf] != theirs[leaf]:
            return (
                f"terms 0 and {leaf} meet in a sum of {ours[leaf]} terms, "
                f"in the other order in one of {theirs[leaf]}"
            )
    return f"{left.summary}; in the other order {right.summary}"


def _met(root: Branch, leaf: int) -> dict[int, int]:
    """For each other leaf: the terms of the smallest sum that holds it and `leaf`."""
    parents: dict[int, Node] = {}
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Node):
            parents.update({_key(child): one for child in one.children})
            waiting.extend(one.children)
    found: dict[int, int] = {}
    branch: Branch = leaf
    while (parent := parents.get(_key(branch))) is not None:
        beside = (child for child in parent.children if _key(child) != _key(branch))
        found.update({other: parent.size for child in beside for other in leaves(child)})
        branch = parent
    return found


def _key(branch: Branch) -> int:
    """Leaves are not negative, so the bits of an identity are kept apart from them by the sign."""
    return -id(branch) if isinstance(branch, Node) else branch


def _text(branch: Branch) -> str:
    if not isinstance(branch, Node):
        return str(branch)
    start, steps = spine(branch)
    pieces: list[str] = []
    run = [start]
    for step in steps:
        leaf = step[0] if len(step) == 1 else None
        if isinstance(leaf, int) and (len(run) < 2 or leaf - run[-1] == run[-1] - run[-2]):
            run.append(leaf)
            continue
        pieces.extend(_run_text(run))
        run = [leaf] if isinstance(leaf, int) else []
        if not run:
            pieces.append("+".join(map(_text, step)))
    pieces.extend(_run_text(run))
    return f"({' '.join(pieces)})"


def _run_text(run: Sequence[int]) -> list[str]:
    if len(run) < 3:
        return [str(leaf) for leaf in run]
    step = run[1] - run[0]
    return [f"{run[0]}..{run[-1]}" + ("" if step == 1 else f":{step}")]


def _levels(branch: Branch) -> Iterator[str]:
    """From the inside out: the chain from which the sum grows, then how chains are joined."""
    start, steps = spine(branch)
    if any(len(step) > 1 for step in steps):
        yield f"sums of up to {max(map(len, steps)) + 1} terms at once"
        return
    added = [step[0] for step in steps]
    count = next((i for i, one in enumerate(added) if isinstance(one, Node)), len(added))
    chain = [start, *(one for one in added[:count] if isinstance(one, int))]
    rest = added[count:]
    if len(chain) > 1 or not rest:
        yield f"{'chains of' if rest else 'all'} {len(chain)} terms{_order(chain)}"
    unit = len(chain)
    while rest:
        sizes = [size(one) for one in rest]
        doubling = next((i for i, one in enumerate(sizes) if one != unit << i), len(sizes))
        equal = next((i for i, one in enumerate(sizes) if one != unit), len(sizes))
        if not equal:
            shown = ", ".join(map(str, sizes[:4])) + (" …" if len(sizes) > 4 else "")
            yield f"then parts of {shown} terms" if len(rest) > 1 else f"then a rest of {shown}"
            return
        taken = max(doubling, equal)
        if doubling > equal:
            yield f"{1 << doubling} of them added up in pairs"
            unit <<= doubling
        else:
            yield f"{equal + 1} of them one after another"
            unit *= equal + 1
        rest = rest[taken:]


def _order(chain: Sequence[int]) -> str:
    gaps = {b - a for a, b in zip(chain, chain[1:], strict=False)}
    if gaps <= {1}:
        return " left to right"
    if gaps == {-1}:
        return " right to left"
    if len(gaps) == 1:
        return f", {abs(gaps.pop())} apart"
    # VDPBF16PS adds the odd one of each pair first; of the first pair either may have come first.
    if list(chain[2:]) == [leaf ^ 1 for leaf in range(2, len(chain))]:
        return " pair by pair, the odd one first"
    return " in an order of its own"
