"""Which connection goes when there are too many."""

from __future__ import annotations

import ipaddress
import resource
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_service.http.connection_limits import (
    ConnectionLimits,
    Connections,
    connections_possible,
)


@dataclass(eq=False)
class Fake:
    address: str
    idle: bool = True
    dropped: bool = field(default=False)

    def drop(self) -> None:
        self.dropped = True


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=60),
    st.integers(1, 8),
    st.integers(1, 8),
)
def test_limits_hold_and_no_busy_one_is_dropped(
    events: list[tuple[str, bool, bool]], most: int, per_address: int
) -> None:
    held = Connections(ConnectionLimits(connections=most, per_address=per_address))
    open_: list[Fake] = []
    for address, idle, leaves in events:
        if leaves and open_:
            held.leave(open_.pop(0))
            continue
        one = Fake(address, idle)
        refused = held.admit(one)
        if refused is None:
            open_.append(one)
        else:
            # Only where every other one that counts is busy.
            assert all(not other.idle for other in open_ if other.address == address) or all(
                not other.idle for other in open_
            )
        assert not any(other.dropped and not other.idle for other in open_)
        open_ = [other for other in open_ if not other.dropped]
        assert len(held) == len(open_) <= most
        for name in "abc":
            assert sum(other.address == name for other in open_) <= per_address


def test_proxies_bring_many_clients() -> None:
    proxy = ipaddress.ip_network("10.0.0.0/24")
    held = Connections(ConnectionLimits(connections=9, per_address=1, unlimited=(proxy,)))
    assert [held.admit(Fake("10.0.0.7", idle=False)) for _ in range(3)] == [None] * 3
    assert held.admit(Fake("10.0.1.7", idle=False)) is None
    assert held.admit(Fake("10.0.1.7", idle=False)) is not None


@pytest.mark.parametrize(
    ("hard", "possible"), [(resource.RLIM_INFINITY, 512), (4096, 512), (256, 128), (100, 50)]
)
def test_descriptors_are_left_for_work(
    monkeypatch: pytest.MonkeyPatch, hard: int, possible: int
) -> None:
    raised = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    assert connections_possible(512) == possible
    assert raised == [(hard, hard)]
