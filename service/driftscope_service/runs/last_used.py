"""Values that take long to make: those used last stay in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class LastUsed(Generic[Key, Value]):
    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._values: OrderedDict[Key, tuple[object, Value]] = OrderedDict()

    def get(self, key: Key, make: Callable[[], Value], *, version: object = None) -> Value:
        """Made again if its version differs; nothing is kept if `make` raises.

        Two callers at a time may both make it.
        """
        with self._lock:
            if key in self._values and self._values[key][0] == version:
                self._values.move_to_end(key)
                return self._values[key][1]
        value = make()
        with self._lock:
            self._values[key] = (version, value)
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value
