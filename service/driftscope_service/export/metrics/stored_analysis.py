"""From the stored analysis of a step to what /metrics shows of it.

In: the JSON object as the intake writes it. Out: StoredNumbers. The same numbers under the names of
frameworks and presets stand in its middle, two thirds of it, and are skipped where that is safe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_FIRST: Final = '{"comparison":'
_LAST: Final = ',"crossed_limits":'
_decoder = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class StoredNumbers:
    comparison: Mapping[str, Any]
    abs_diff_histogram: Mapping[str, Any] | None  # None: stored by a version without
    overflowed: frozenset[str]  # names of metrics beyond their limit without a finite value


def stored_numbers(analysis: bytes) -> StoredNumbers:
    text = analysis.decode()
    document = _both_ends(text)
    if document is None:
        document = json.loads(text)
    crossed = document.get("crossed_limits", ())
    return StoredNumbers(
        comparison=document.get("comparison", {}),
        abs_diff_histogram=document.get("profiles", {}).get("abs_diff_histogram"),
        overflowed=frozenset(limit["metric"] for limit in crossed if limit["value"] is None),
    )


def _both_ends(text: str) -> dict[str, Any] | None:
    """The first member and those from `crossed_limits` on; None where it is laid out otherwise.

    What follows `_LAST` is an object to exactly the end of the text, so that it cannot have begun
    deeper inside; nor within a string, where quotes are escaped.
    """
    place = text.rfind(_LAST)
    if place < 0 or not text.startswith(_FIRST):
        return None
    try:
        comparison, _ = _decoder.raw_decode(text, len(_FIRST))
        rest: dict[str, Any] = json.loads("{" + text[place + 1 :])
    except json.JSONDecodeError:
        return None
    return {"comparison": comparison, **rest} if "profiles" in rest else None
