"""What invariant mode will not run. In: nothing. Out: the error that says so."""

from __future__ import annotations


class InvariantModeError(RuntimeError):
    """An op whose result depends on the batch by its nature, such as dropout."""
