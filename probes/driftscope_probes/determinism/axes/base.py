"""Axis: one thing that may change a bit, as values; Case: two sides that must give equal bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from driftscope_probes.determinism.batch import Plan, Value
from driftscope_probes.engines.sessions.question import Batch, Setup
from driftscope_probes.errors import RequestError

#: What has to be seen in a job's answer; without it, an equal result would show nothing.
Demand = Literal["preemption", "cached"]


@dataclass(frozen=True, slots=True)
class Job:
    setup: Setup
    batch: Batch
    rescore: bool = False  # what the batch sampled is read as a prompt; those scores count
    demand: Demand | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """Each output of `variant` is compared with the first of its key in `reference`."""

    reference: tuple[Job, ...]
    variant: tuple[Job, ...]


class Axis(Protocol):
    @property
    def setting(self) -> str:
        """What a value is, in words."""
        ...

    @property
    def ordered(self) -> bool:
        """Whether values lie on a line, so that an onset can be looked for between two."""
        ...

    def values(self, plan: Plan) -> tuple[Value, ...]:
        """The reference first, then outwards."""
        ...

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        """Raise RequestError for a value that this axis does not have."""
        ...


def integer(value: Value, setting: str, least: int, most: int) -> int:
    """A value as a number. Raises RequestError."""
    if not isinstance(value, int) or not least <= value <= most:
        raise RequestError(
            f"{value!r} is not valid for {setting!r}.",
            remedy=f"give whole numbers from {least} to {most}.",
        )
    return value


def choice(value: Value, setting: str, known: tuple[str, ...]) -> str:
    """A value as a name. Raises RequestError."""
    if value not in known:
        raise RequestError(
            f"{value!r} is not valid for {setting!r}.", remedy=f"choose of: {', '.join(known)}."
        )
    return str(value)
