"""JSON objects from strangers: UTF-8, no name twice, no depth that exhausts the parser.

In: bytes that were already limited in size. Out: the object, or PushError.
"""

from __future__ import annotations

import json
from typing import Any

from driftscope_probes.push.push_error import PushError


def parse_object(raw: bytes, what: str) -> dict[str, Any]:
    """`what` names the document in the error."""
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise PushError(
            f"{what} is no valid JSON: {error}"[:500],
            remedy="write it again with a JSON library, in UTF-8 and each name once.",
        ) from error
    if not isinstance(value, dict):
        raise PushError(
            f"{what} is a JSON {type(value).__name__}, accepted is an object.",
            remedy='write {"name": value, …}; docs/push-format.md shows one.',
        )
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Readers differ in which of two equal names they keep: what was checked must be what is used.
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"the name {name[:80]!r} occurs twice")
        fields[name] = value
    return fields
