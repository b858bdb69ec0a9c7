"""What the configurations of several trainers have in common: values, and OmegaConf's references.

In: a value as parsed, or a table. Out: the words of names.NAMES for it, None where it is not known;
of a table, pairs of dotted key and value with `${policy.precision}` and `${oc.select:a.b,default}`
replaced. What refers to something else stays as it is, and values.py does not know it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from driftscope_probes.lint.readers.base import leaves
from driftscope_probes.lint.readers.values import number, switch, word

_REFERENCE: Final = re.compile(
    r"\$\{(?:oc\.select:)?\s*(?P<key>[\w.-]+)\s*(?:,(?P<default>[^}]*))?\}"
)
#: References lead to references at most twice in verl's and NeMo-RL's files; a ring never ends.
_LONGEST_CHAIN: Final = 4


def resolved(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    known = dict(leaves(table))
    for key, value in known.items():
        yield key, _follow(value, known)


def _follow(value: Any, known: Mapping[str, Any]) -> Any:
    for _ in range(_LONGEST_CHAIN):
        reference = _REFERENCE.fullmatch(value.strip()) if isinstance(value, str) else None
        if reference is None:
            return value
        if reference["key"] not in known and reference["default"] is None:
            return value
        value = known.get(reference["key"], reference["default"])
    return value


def unless_null(value: Any) -> str | None:
    """A mode that null turns off: "off", or its word. An unresolved reference stays unknown."""
    said = word(value)
    if value is None or value is False or said in ("false", "off", "disabled"):
        return "off"
    if isinstance(value, str) and value.strip().lower() in ("null", "none", ""):
        return "off"
    return "on" if value is True or said == "true" else said


def correction(value: Any) -> str | None:
    """Of a switch: importance sampling between engine and trainer is "on" or "off"."""
    said = switch(value)
    return None if said is None else "on" if said else "off"


def capped(value: Any) -> str | None:
    """Of a cap on the importance weights: none, zero or below means that there are none."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("null", "none")):
        return "off"
    cap = number(value)
    return None if cap is None else "token" if cap > 0 else "off"


def rank(value: Any) -> int | None:
    found = number(value)
    return int(found) if found is not None and found >= 0 else None


def sequence_switch(value: Any) -> str | None:
    """Whether a ratio is taken over the whole sequence."""
    said = switch(value)
    return None if said is None else "sequence" if said else "token"


def targets_head(value: Any) -> bool | None:
    """Of the modules that an adapter changes: a list, or words with blanks or commas."""
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    if not isinstance(value, list):
        return None
    return any(part in str(name) for name in value for part in ("lm_head", "embed", "output_layer"))


def named(said: str) -> Callable[[Any], str | None]:
    """Of a switch: the word that it stands for while it is on."""
    return lambda value: said if switch(value) else None
