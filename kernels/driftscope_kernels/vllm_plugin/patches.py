"""Replaces functions of vLLM with ours, and restores them.

In: owner (module or class), name, new value. Out: the value that was there.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class _Replaced:
    owner: Any
    name: str
    original: Any  # as defined in the owner: a staticmethod stays one


_REPLACED: list[_Replaced] = []


def replace(owner: Any, name: str, new: Any) -> None:
    """Put `new` in the place of owner.name. Raises AttributeError where there is no such name."""
    original = inspect.getattr_static(owner, name)
    _REPLACED.append(_Replaced(owner, name, original))
    setattr(owner, name, new)


def installed() -> bool:
    return bool(_REPLACED)


def restore_all() -> None:
    """Everything as it was. Layers made in between keep what they were made with."""
    while _REPLACED:
        last = _REPLACED.pop()
        setattr(last.owner, last.name, last.original)
