"""The time a night may take: what runs when it is over is stopped, what is left is not run."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from driftscope_probes.child_process import ChildProcess
from driftscope_probes.errors import Cancelled


class OutOfTime(Exception):
    """The budget is used up."""


class Budget:
    """Counts from when it is made; `spent_s` is what an interrupted start has used already."""

    def __init__(self, seconds: float, spent_s: float = 0.0) -> None:
        self._end = time.monotonic() + seconds - spent_s

    @property
    def left_s(self) -> float:
        return self._end - time.monotonic()

    def check(self) -> None:
        """Raises OutOfTime."""
        if self.left_s <= 0:
            raise OutOfTime

    @contextmanager
    def stopping(self, child: ChildProcess) -> Iterator[None]:
        """Around `child.wait()`: end the child when the time is over. Raises OutOfTime."""
        timer = threading.Timer(max(0.0, self.left_s), child.cancel)
        timer.daemon = True
        timer.start()
        try:
            yield
        except Cancelled as error:
            raise OutOfTime from error
        finally:
            timer.cancel()
