"""Values that the configurations of several trainers have in common, beside those of values.py.

In: a value as parsed. Out: the words of names.NAMES for it; None: not known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from driftscope_probes.lint.readers.values import number, switch, word


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
