"""Which differences between the environments of places go with which classes of bits.

In: the environment of every place, and classes. Out: facts that differ, and how each one's values
lie to the classes. A fact is named as going together with the classes; only where it is the single
difference between two places is it shown to make one, or to make none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, Final, Literal

from driftscope_probes.device.environment import key_of
from driftscope_probes.matrix.classes import Classes
from driftscope_probes.record import Record

#: How the values of a fact lie to the classes of one subject.
#: matches: places have other values exactly where they have other bits.
#: separates: other values wherever other bits, and also within a class.
#: partly: other values between some classes, the same ones between others.
#: within: other values within classes alone.
Relation = Literal["matches", "separates", "partly", "within"]
RELATIONS: Final[Mapping[str, str]] = {
    "matches": "differs exactly where the bits differ",
    "separates": "differs wherever the bits differ, and also between places that agree",
    "partly": "differs between some classes and not between others",
    "within": "differs only between places that agree bit for bit",
}
#: What torch makes of the hardware and of variables: a consequence, not a difference of its own.
DERIVED: Final = frozenset({("version", "CPU capability of torch")})
ABSENT: Final = "–"
#: Of a value that is shown; lists of CPU features have about 60 characters.
MOST_SHOWN: Final = 300


class Fact(Record):
    """One thing that is not the same at all places."""

    kind: str  # hardware, version, platform or variable
    name: str
    values: dict[str, str]  # by name of the place


class GoesWith(Record):
    kind: str
    name: str
    relation: str  # a Relation
    #: Two places of which this is the only difference; None: there is no such pair.
    only_between: tuple[str, str] | None
    makes_difference: bool | None  # what that pair shows; None: there is no such pair


def facts_that_differ(environments: Mapping[str, Mapping[str, Any]]) -> tuple[Fact, ...]:
    flat = {place: dict(_flat(found)) for place, found in environments.items()}
    keys = dict.fromkeys(key for facts in flat.values() for key in facts)
    found = []
    for kind, name in keys:
        values = {place: facts.get((kind, name), ABSENT) for place, facts in flat.items()}
        if len(set(values.values())) > 1:
            found.append(Fact(kind=kind, name=name, values=values))
    return tuple(found)


def _flat(environment: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], str]]:
    key = key_of(environment)
    parts = {
        "hardware": key["hardware"],
        "version": {**key["versions"], "driftscope": environment["packages"].get("driftscope")},
        "platform": {"platform": environment.get("platform")},
        "variable": environment["variables"],
    }
    for kind, entries in parts.items():
        for name, value in entries.items():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield (kind, str(name)), shown[:MOST_SHOWN]


def going_with(classes: Classes, facts: tuple[Fact, ...]) -> tuple[GoesWith, ...]:
    """The strongest first. `classes`: of places that all facts are known of."""
    class_of = {name: index for index, one in enumerate(classes) for name in one}
    found = []
    for fact in facts:
        relation = _relation(fact, class_of)
        if relation is None:
            continue
        only = _only_between(fact, facts, class_of)
        found.append(
            GoesWith(
                kind=fact.kind,
                name=fact.name,
                relation=relation,
                only_between=only,
                makes_difference=None if only is None else class_of[only[0]] != class_of[only[1]],
            )
        )
    order = list(RELATIONS)
    return tuple(
        sorted(found, key=lambda one: (one.makes_difference is not True, order.index(one.relation)))
    )


def _relation(fact: Fact, class_of: Mapping[str, int]) -> Relation | None:
    """None: it is the same at all places of these classes."""
    across: list[bool] = []
    within: list[bool] = []
    for first, second in combinations(class_of, 2):
        differs = fact.values[first] != fact.values[second]
        (within if class_of[first] == class_of[second] else across).append(differs)
    if not any(across):
        return "within" if any(within) else None
    if all(across):
        return "separates" if any(within) else "matches"
    return "partly"


def _only_between(
    fact: Fact, facts: tuple[Fact, ...], class_of: Mapping[str, int]
) -> tuple[str, str] | None:
    """A pair with other bits goes before one with the same."""
    if (fact.kind, fact.name) in DERIVED:
        return None
    others = [one for one in facts if one is not fact and (one.kind, one.name) not in DERIVED]
    pairs = [
        (first, second)
        for first, second in combinations(class_of, 2)
        if fact.values[first] != fact.values[second]
        and all(one.values[first] == one.values[second] for one in others)
    ]
    return min(pairs, key=lambda pair: class_of[pair[0]] == class_of[pair[1]], default=None)
