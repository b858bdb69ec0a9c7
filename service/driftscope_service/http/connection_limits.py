"""How many connections a process holds: in all, for each address, and within its descriptors."""

from __future__ import annotations

import ipaddress
import resource
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

#: For the database's files and sockets, pipes of jobs and analyses, files under way, the log: a
#: service under load was seen with 60.
SPARE_DESCRIPTORS: Final = 128
#: The spare ones may take this share of what there is, or nobody could connect.
MOST_SPARED: Final = 0.5

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    connections: int = 512
    per_address: int = 128
    #: A proxy brings the connections of many clients.
    unlimited: tuple[Network, ...] = ()
    header_bytes: int = 32 * 2**10
    header_fields: int = 100
    header_timeout_s: float = 10.0


class Held(Protocol):
    """A connection, as the limits see it."""

    @property
    def address(self) -> str: ...

    @property
    def idle(self) -> bool:
        """No request of it is under way: it may be closed without a loss."""
        ...

    def drop(self) -> None: ...


@dataclass(slots=True)
class Connections:
    """Of one process and one event loop.

    At a limit the oldest idle connection goes, so that whoever opens many and says nothing takes
    the place of nobody else; only where none is idle a new one is refused.
    """

    limits: ConnectionLimits
    _held: dict[Held, None] = field(default_factory=dict)  # oldest first
    _of_address: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self._held)

    def admit(self, new: Held) -> str | None:
        """Holds it and answers None, or says which limit refuses it."""
        refused = self._make_room(new)
        if refused is None:
            self._held[new] = None
            self._of_address[new.address] += 1
        return refused

    def _make_room(self, new: Held) -> str | None:
        limits = self.limits
        if self._is_full(new.address) and not self._drop_idle(new.address):
            return f"{limits.per_address} connections of this address"
        if len(self._held) >= limits.connections and not self._drop_idle():
            return f"{limits.connections} connections"
        return None

    def leave(self, gone: Held) -> None:
        """May be called for a connection that was never admitted, and twice."""
        if gone not in self._held:
            return
        del self._held[gone]
        self._of_address[gone.address] -= 1
        if not self._of_address[gone.address]:
            del self._of_address[gone.address]

    def _is_full(self, address: str) -> bool:
        if self._of_address[address] < self.limits.per_address:
            return False
        return not is_within(address, self.limits.unlimited)

    def _drop_idle(self, address: str | None = None) -> bool:
        for held in self._held:
            if held.idle and address in (None, held.address):
                self.leave(held)
                held.drop()
                return True
        return False


def is_within(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def connections_possible(wanted: int) -> int:
    """As many as wanted, or as descriptors leave room for. Raises the soft limit to the hard one,
    which every process may do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, hard - min(SPARE_DESCRIPTORS, int(hard * MOST_SPARED)))
