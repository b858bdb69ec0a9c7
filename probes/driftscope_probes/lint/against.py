"""Against: two hosts side by side, what differs first by whether it can change numerics.

In: the facts of two hosts, such as the engine's and the trainer's, or today's and last week's. Out:
their differences, those that can change a bit of a result first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from driftscope_probes.errors import RequestError
from driftscope_probes.lint.base import Scalar
from driftscope_probes.lint.host import Fact, Host
from driftscope_probes.lint.numerics import CHANGES, Changes, FactKind, effect_of


@dataclass(frozen=True, slots=True)
class Difference:
    kind: FactKind
    name: str
    here: Scalar | None  # None: it is not set there
    there: Scalar | None
    where_here: str | None
    where_there: str | None
    changes: Changes  # whether it can change numerics
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Comparison:
    differences: tuple[Difference, ...]  # of kinds that both hosts tell of
    same: int  # facts
    untold: tuple[str, ...]  # kinds that only one of the hosts tells of, in words

    def of(self, *changes: Changes) -> tuple[Difference, ...]:
        return tuple(one for one in self.differences if one.changes in changes)

    def to_dict(self) -> dict[str, Any]:
        return {
            "differences": [one.to_dict() for one in self.differences],
            "same": self.same,
            "untold": list(self.untold),
        }


#: What the kinds are called, where one host says nothing of them.
KIND_WORDS: Mapping[FactKind, str] = {
    "version": "versions of packages",
    "hardware": "hardware",
    "variable": "environment variables",
    "setting": "settings",
    "config": "configuration",
}


def compare_hosts(here: Host, there: Host) -> Comparison:
    """A kind of fact that one host tells nothing of is no difference: it was not looked at.

    Raises RequestError where the two tell of nothing in common, which is not the same as equal.
    """
    differences: list[Difference] = []
    same, untold = 0, []
    for kind, words in KIND_WORDS.items():
        mine, other = here.of(kind), there.of(kind)
        if not mine and not other:
            continue
        if not mine or not other:
            untold.append(words)
            continue
        names = {**mine, **other}
        found = [_difference(kind, name, mine.get(name), other.get(name)) for name in names]
        unlike = [one for one in found if one is not None]
        same += len(names) - len(unlike)
        differences += unlike
    if not differences and not same:
        raise RequestError(
            f"the two sides have nothing in common to compare: {_kinds(here)} on one, "
            f"{_kinds(there)} on the other.",
            remedy="give the same kinds of files for both, such as what `driftscope environment` "
            "prints on each host.",
        )
    return Comparison(_ordered(differences), same, tuple(untold))


def _kinds(host: Host) -> str:
    return " and ".join(words for kind, words in KIND_WORDS.items() if host.of(kind)) or "nothing"


def _difference(
    kind: FactKind, name: str, here: Fact | None, there: Fact | None
) -> Difference | None:
    values = [None if one is None else one.value for one in (here, there)]
    if _same(values[0], values[1]):
        return None
    changes, reason = effect_of(kind, name)
    return Difference(
        kind,
        name,
        values[0],
        values[1],
        None if here is None else here.where,
        None if there is None else there.where,
        changes,
        reason,
    )


def _same(here: Scalar | None, there: Scalar | None) -> bool:
    """A host's 0 and another's false say the same of a switch only where both are texts."""
    return here == there and isinstance(here, bool) == isinstance(there, bool)


def _ordered(differences: Iterable[Difference]) -> tuple[Difference, ...]:
    kinds = list(KIND_WORDS)
    return tuple(
        sorted(differences, key=lambda one: (CHANGES.index(one.changes), kinds.index(one.kind)))
    )
