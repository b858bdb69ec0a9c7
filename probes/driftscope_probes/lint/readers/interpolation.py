"""References of OmegaConf inside a table: `${policy.precision}`, `${oc.select:a.b,default}`.

In: a table as parsed. Out: pairs of dotted key and value, references to values of the same table
replaced. What refers to something else stays as it is, and values.py does not know it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from driftscope_probes.lint.readers.base import leaves

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
