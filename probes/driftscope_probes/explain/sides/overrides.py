"""Functions of live objects, replaced for as long as a block runs.

In: an object, the name of a method, a function of the one before. Out: nothing that stays behind.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any


class Overrides(ExitStack):
    """Leaving the block, by an exception too, puts everything back as it was."""

    def wrap(
        self, owner: Any, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]
    ) -> None:
        """`around` gets what is called now and gives what is called instead.

        The class of `owner` is left alone, unless `owner` is a module or class itself.
        """
        own = vars(owner)
        before, had = own.get(name), name in own
        setattr(owner, name, around(getattr(owner, name)))

        def restore() -> None:
            if had:
                setattr(owner, name, before)
            else:
                delattr(owner, name)

        self.callback(restore)
