"""How long work on a model reports itself: a plain call with the stage and the share done.

In: nothing. Out: the type of the callback, and the callback that drops everything.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]  # (stage in words, share of the whole done, 0..1)


def silent(stage: str, fraction: float) -> None:
    """Drops the report."""
