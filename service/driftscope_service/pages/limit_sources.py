"""Whose limit it is, and where docs/limits.md says how it came about.

In: the `source` of a crossed limit, as the API and stored analyses have it. Out: the address of the
section of the documentation that derives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

LIMITS_PAGE: Final = "/docs/limits"
#: How the source of a limit begins, and the heading of docs/limits.md that is about it.
_SECTIONS: Final[Mapping[str, str]] = {
    "verl": "verl",
    "slime and vime": "slime-and-vime",
    "NeMo-RL": "nemo-rl",
    "prime-rl": "prime-rl",
    "martingale": "martingale",
    "R3": "r3",
    "a log-probability": "numbers-that-are-not-finite",
}


def limit_page(source: str) -> str:
    """The page itself where an older version named a source that has no section here."""
    section = next((found for start, found in _SECTIONS.items() if source.startswith(start)), None)
    return LIMITS_PAGE if section is None else f"{LIMITS_PAGE}#{section}"
