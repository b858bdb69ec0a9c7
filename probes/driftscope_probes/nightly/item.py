"""What one night checks: a kernel at a dtype and number of threads, or an engine along an axis.

Items come out of the configuration with the verdict that is expected of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from driftscope_probes.verdicts import NOT_RUN

Kind = Literal["kernel", "engine"]

#: The axes of driftscope_kernels.check, which needs torch to be imported; a test holds them equal.
KERNEL_AXES = (
    *("batch_size", "micro_batch", "position", "permutation", "neighbours", "padding", "split"),
    *("run_to_run", "layout", "threads", "query_chunk", "page_order", "page_size", "context"),
    *("fresh_process", "accuracy"),
)


@dataclass(frozen=True, slots=True)
class KernelItem:
    name: str  # target/op/implementation, as `kernels list` prints them
    dtype: str
    threads: int
    axis: str | None  # None: the verdict on the whole kernel
    quick: bool
    seed: int
    expected: str

    kind: Kind = field(default="kernel", init=False)

    @property
    def id(self) -> str:
        axis = "" if self.axis is None else f"/{self.axis}"
        return self.computation + axis

    @property
    def computation(self) -> str:
        """What computes: all axes of a kernel share the same bits."""
        return f"kernel/{self.name}/{self.dtype}/t{self.threads}"

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that are not in the id but may affect the verdict."""
        return {"quick": self.quick, "seed": self.seed}

    @property
    def process(self) -> tuple[Any, ...]:
        """Items with the same value share a process."""
        return ("kernel", self.quick, self.seed)


@dataclass(frozen=True, slots=True)
class EngineItem:
    model: str
    engine: str
    kernels: str
    dtype: str
    axis: str
    label: str | None
    settings: Mapping[str, Any]  # further fields of the determinism request
    expected: str

    kind: Kind = field(default="engine", init=False)

    @property
    def id(self) -> str:
        label = "" if self.label is None else f"/{self.label}"
        parts = ("engine", self.model, self.engine, self.kernels, self.dtype, self.axis)
        return "/".join(parts) + label

    @property
    def computation(self) -> str:
        return self.id

    @property
    def process(self) -> tuple[Any, ...]:
        """One process holds one engine at a time and goes from one to the next by itself; of
        servers it asks one."""
        server = (self.settings.get("server_url"), self.settings.get("server_model"))
        return ("engine", self.model, self.engine, *server)


Item = KernelItem | EngineItem


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of running an item."""

    verdict: str
    seconds: float
    detail: Mapping[str, Any]  # JSON values: the reason, numbers, where a difference is
    replay: str | None  # a command that reproduces it

    @property
    def ran(self) -> bool:
        return self.verdict not in NOT_RUN.values()


def not_run(item: Item, reason: str, seconds: float = 0.0) -> Finding:
    return Finding(NOT_RUN[item.kind], seconds, {"reason": reason}, None)
