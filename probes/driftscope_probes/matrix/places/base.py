"""A place: somewhere the same work is run, an interpreter of this machine or a cluster's node."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator

from driftscope_probes.device.environment import VARIABLE_PREFIXES
from driftscope_probes.errors import ProbeError
from driftscope_probes.matrix.work import Work
from driftscope_probes.progress import ProgressSink

#: Valid in a file name, a label and an option alike.
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,99}")
#: Of a value; those that steer numerics are words and small numbers.
MOST_VALUE: Final = 200


class PlaceError(ProbeError):
    """A place could not be reached, or has ended before it answered."""


class LocalDefinition(BaseModel):
    """A place of this machine, as its operator defines it: an interpreter, variables, or both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: Path | None = Field(None, description="interpreter; null: the service's own")
    variables: dict[str, str] = Field(
        default_factory=dict, max_length=32, description="environment variables of its processes"
    )

    @field_validator("python")
    @classmethod
    def _absolute(cls, python: Path | None) -> Path | None:
        # Relative to which folder would depend on who starts the probe.
        if python is not None and not python.is_absolute():
            raise ValueError(f"{python} is not an absolute path")
        return python

    @field_validator("variables")
    @classmethod
    def _recorded(cls, variables: dict[str, str]) -> dict[str, str]:
        for name, value in variables.items():
            if not _VARIABLE.fullmatch(name) or not name.startswith(VARIABLE_PREFIXES):
                # A difference that the report could not show would be laid to something else.
                raise ValueError(
                    f"the variable {name[:80]!r} is not one that reports record; accepted are "
                    f"those beginning with {', '.join(VARIABLE_PREFIXES)}"
                )
            if len(value) > MOST_VALUE or not value.isprintable():
                raise ValueError(
                    f"the value of {name} is not accepted: at most {MOST_VALUE} characters, all "
                    "printable"
                )
        return variables


class Place(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str:
        """local or ray."""
        ...

    @property
    def variables(self) -> Mapping[str, str]:
        """Those set for this place alone."""
        ...

    @property
    def own_python(self) -> bool:
        """Whether it has an interpreter of its own on this machine."""
        ...

    @property
    def beside_others(self) -> bool:
        """Whether it has a machine of its own, so that others may run at the same time."""
        ...

    def run(self, work: Work, workdir: Path, progress: ProgressSink) -> bytes:
        """The packed answer. Raises ProbeError."""
        ...


def checked_name(name: str) -> str:
    """Raises ValueError."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"the name {name[:80]!r} of a place is not accepted: 1 to 64 letters, digits, dots, "
            "underscores or hyphens, beginning with a letter or digit"
        )
    return name


def threads_of(variables: Mapping[str, str]) -> int | None:
    """Both sides set their threads themselves: what the place's variable says must reach them."""
    said: Any = variables.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) > 0 else None
