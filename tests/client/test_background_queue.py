from __future__ import annotations

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_client.background_queue import BackgroundQueue

PATIENCE_S = 30.0


class Gate:
    """Work that waits until it is let through."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.done: list[int] = []

    def work(self, item: int) -> None:
        assert self.open.wait(PATIENCE_S)
        self.done.append(item)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 10), max_size=12), st.integers(1, 5), st.integers(0, 20))
def test_it_takes_what_fits_in_order_and_nothing_else(
    sizes: list[int], max_items: int, max_bytes: int
) -> None:
    gate = Gate()
    queue = BackgroundQueue(gate.work, max_items=max_items, max_bytes=max_bytes)
    held: list[int] = []
    for place, size in enumerate(sizes):
        fits = len(held) < max_items and sum(sizes[i] for i in held) + size <= max_bytes
        assert queue.has_room(size) == fits
        assert queue.put(place, size) == fits
        if fits:
            held.append(place)
    assert queue.flush(0.0) == (not held)
    gate.open.set()
    assert queue.flush(PATIENCE_S)
    assert gate.done == held
    assert queue.put(99, 0)
    assert queue.flush(PATIENCE_S)
    assert queue.close() == []


def test_closing_gives_up_what_waits() -> None:
    gate = Gate()
    queue = BackgroundQueue(gate.work, max_items=5, max_bytes=100)
    for item in range(3):
        assert queue.put(item, 1)
    left = len(queue.close())
    assert left in (2, 3)  # one may be in work already
    assert not queue.put(9, 1)
    gate.open.set()
    assert queue.flush(PATIENCE_S)
    assert len(gate.done) == 3 - left


def test_the_thread_ends_with_the_queue() -> None:
    before = set(threading.enumerate())
    queue = BackgroundQueue[int](lambda _: None, max_items=5, max_bytes=100)
    queue.put(1, 1)
    assert queue.flush(PATIENCE_S)
    (thread,) = set(threading.enumerate()) - before
    queue.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
