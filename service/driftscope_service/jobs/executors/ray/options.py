"""Which cluster, and what a job asks of its node. Free of Ray: the service reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    address: str  # HOST:PORT or `auto`, which need a node on this machine; ray://HOST:PORT
    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int = 0  # 0: none is reserved
    accelerator_type: str | None = None  # as Ray names it, `H100`
    resources: Mapping[str, float] = field(default_factory=dict)  # further ones of the cluster

    @property
    def demand(self) -> str:
        """In words, for a job that waits for it."""
        parts = [_amount(self.cpus, "CPU"), _amount(self.gpus, "GPU") if self.gpus else ""]
        parts += [self.accelerator_type or "", _gib(self.memory_bytes)]
        parts += [f"{amount:g} {name}" for name, amount in self.resources.items()]
        return ", ".join(part for part in parts if part)


def _amount(number: float, one: str) -> str:
    return f"{number:g} {one if number == 1 else one + 's'}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size else ""
