"""Which changes together bring the gap down most: one after another, and pairs where none helps.

In: names, the axis of each, and a function that measures a set. Out: Combination. Free of torch.

Changes of one axis exclude each other (two bases of one rotary). A fault may show only once another
is gone, so where no change helps alone, the likeliest are tried in pairs before giving up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from driftscope_probes.explain.server.measure import Effect, Moved, effect

Set = tuple[str, ...]
#: |Δ| with these changes; None: they cannot be measured (the measurer keeps the reason).
Measure = Callable[[Set], Moved | None]
#: Changes that may be needed together. Each further one costs a run of every remaining change.
MOST_TOGETHER: Final = 3
#: Changes that are paired where none helps alone: of 5 there are 10 pairs.
PAIRED: Final = 5


@dataclass(frozen=True, slots=True)
class Trial:
    changes: Set
    effect: Effect  # against the set without the last change


@dataclass(frozen=True, slots=True)
class Combination:
    alone: tuple[Trial, ...]  # every change that could be measured, in the order given
    further: tuple[Trial, ...]  # sets of two and more
    chosen: Set  # empty: none helps
    after: Moved  # |Δ| with them
    as_good: tuple[Set, ...]  # further sets that are enough too: nothing tells which it is


def combine(
    axes: Mapping[str, str], measure: Measure, enough: Callable[[Moved], bool]
) -> Combination:
    """`axes`: of every change by name. `enough`: |Δ| needs no further change.

    Raises whatever `measure` raises.
    """
    names = list(axes)
    base = measure(())
    assert base is not None, "the trainer as it is was measured"
    alone = _tried((), names, base, measure)
    trials = [trial for trial, _ in alone]
    best, as_good = _best(alone, enough)
    further: list[Trial] = []
    if best is None and not enough(base):
        pairs = _pairs(alone, axes, base, measure)
        further += [trial for trial, _ in pairs]
        best, as_good = _best(pairs, enough)
    chosen: Set = ()
    after, others = base, as_good
    while best is not None:
        (chosen, after), others = best, as_good
        if enough(after) or len(chosen) >= MOST_TOGETHER:
            break
        taken = {axes[name] for name in chosen}
        rest = [name for name in names if axes[name] not in taken]
        tried = _tried(chosen, rest, after, measure)
        further += [trial for trial, _ in tried]
        best, as_good = _best(tried, enough)
    return Combination(tuple(trials), tuple(further), chosen, after, others)


def _tried(
    before: Set, names: Sequence[str], base: Moved, measure: Measure
) -> list[tuple[Trial, Moved]]:
    found = []
    for name in names:
        changes = (*before, name)
        after = measure(changes)
        if after is not None:
            found.append((Trial(changes, effect(base, after, tried=len(names))), after))
    return found


def _pairs(
    alone: Sequence[tuple[Trial, Moved]], axes: Mapping[str, str], base: Moved, measure: Measure
) -> list[tuple[Trial, Moved]]:
    likeliest = sorted(alone, key=lambda one: one[0].effect.after)[:PAIRED]
    names = [trial.changes[0] for trial, _ in likeliest]
    found = []
    for pair in combinations(names, 2):
        after = measure(pair) if axes[pair[0]] != axes[pair[1]] else None
        if after is not None:
            tried = effect(base, after, tried=len(alone) + PAIRED * (PAIRED - 1) // 2)
            found.append((Trial(pair, tried), after))
    return found


def _best(
    tried: Sequence[tuple[Trial, Moved]], enough: Callable[[Moved], bool]
) -> tuple[tuple[Set, Moved] | None, tuple[Set, ...]]:
    """The first that is enough, since the likeliest come first, else the one that lowers most.

    And the others that are enough: below the floor a smaller gap says nothing.
    """
    helping = [one for one in tried if one[0].effect.direction == "lowers"]
    if not helping:
        return None, ()
    sufficient = [one for one in helping if enough(one[1])]
    if sufficient:
        (trial, after), *others = sufficient
        return (trial.changes, after), tuple(other.changes for other, _ in others)
    trial, after = min(helping, key=lambda one: one[0].effect.after)
    return (trial.changes, after), ()
