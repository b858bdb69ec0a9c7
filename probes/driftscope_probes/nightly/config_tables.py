"""The tables of a nightly's TOML file as pydantic models: strict, nothing extra."""

from __future__ import annotations

from collections.abc import Sized
from math import prod
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from driftscope_probes.dtypes import Dtype
from driftscope_probes.nightly.item import KERNEL_AXES, RANKS

#: A kernel's name as the registry takes it: target/op/implementation.
KERNEL_NAME = r"^[A-Za-z0-9_.-]{1,64}/[A-Za-z0-9_.-]{1,64}/[A-Za-z0-9_.-]{1,64}$"
KernelName = Annotated[str, Field(pattern=KERNEL_NAME)]
#: Part of an id and of a file name.
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Threads = Annotated[int, Field(ge=1, le=64)]
Pattern = Annotated[str, Field(min_length=1, max_length=512)]
MOST_NAMES = 256
MOST_TABLES = 64
#: Two days: a longer night would still run when the next but one is due.
MOST_MINUTES = 48 * 60.0

WHOLE = "all"


class Table(BaseModel):
    # strict: a number in quotation marks is a mistake, not a number.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Override(Table):
    """Another expectation for the items whose id matches."""

    items: Pattern = Field(description="a pattern of ids, with * and ?")
    expected: str


class KernelTable(Table):
    """Every one of `names` at every dtype and number of threads, on every axis."""

    names: list[KernelName] = Field(min_length=1, max_length=MOST_NAMES)
    dtypes: list[Dtype] = Field(min_length=1)
    threads: list[Threads] = Field([1], min_length=1, max_length=8)
    axes: list[str] = Field([WHOLE], min_length=1)
    quick: bool = True
    seed: int = Field(0, ge=0, le=2**31 - 1)
    expected: str
    override: list[Override] = Field([], max_length=MOST_NAMES)

    @field_validator("names", "dtypes", "threads", "axes")
    @classmethod
    def _unique(cls, values: list[Any]) -> list[Any]:
        return _once(values)

    @field_validator("axes")
    @classmethod
    def _axes(cls, axes: list[str]) -> list[str]:
        return _among(axes, (WHOLE, *KERNEL_AXES), "axis")

    @field_validator("expected")
    @classmethod
    def _verdict(cls, verdict: str) -> str:
        return _among([verdict], RANKS["kernel"], "verdict of a kernel")[0]

    @property
    def size(self) -> int:
        """How many items it stands for."""
        sides: tuple[Sized, ...] = (self.names, self.dtypes, self.threads, self.axes)
        return prod(len(side) for side in sides)


class EngineTable(Table):
    """Every one of `models` with every engine, choice of kernels and dtype, on every axis."""

    models: list[Annotated[str, Field(min_length=1, max_length=512)]] = Field(
        min_length=1, max_length=MOST_NAMES
    )
    engines: list[str] = Field(min_length=1)
    kernels: list[Literal["stock", "invariant"]] = Field(min_length=1)
    dtypes: list[Dtype] = Field(min_length=1)
    axes: list[str] = Field(min_length=1)
    label: Label | None = None
    settings: dict[str, Any] = Field({}, description="further fields of the determinism request")
    expected: str
    override: list[Override] = Field([], max_length=MOST_NAMES)

    @field_validator("models", "engines", "kernels", "dtypes", "axes")
    @classmethod
    def _unique(cls, values: list[Any]) -> list[Any]:
        return _once(values)

    @field_validator("expected")
    @classmethod
    def _verdict(cls, verdict: str) -> str:
        return _among([verdict], RANKS["engine"], "verdict of an engine")[0]

    @property
    def size(self) -> int:
        """How many items it stands for."""
        sides: tuple[Sized, ...] = (self.models, self.engines, self.kernels, self.dtypes, self.axes)
        return prod(len(side) for side in sides)


class NightlyFile(Table):
    name: Label
    budget_minutes: float = Field(gt=0, le=MOST_MINUTES)
    environment_change: Literal["fail", "report"] = "fail"
    bits_change: Literal["fail", "report"] = "fail"
    kernels: list[KernelTable] = Field([], max_length=MOST_TABLES)
    engines: list[EngineTable] = Field([], max_length=MOST_TABLES)


def _once(values: list[Any]) -> list[Any]:
    if len(set(values)) != len(values):
        raise ValueError(f"names a value twice: {', '.join(map(str, values))}")
    return values


def _among(values: list[str], known: tuple[str, ...], what: str) -> list[str]:
    unknown = [value for value in values if value not in known]
    if unknown:
        raise ValueError(f"unknown {what} {', '.join(unknown)}; known: {', '.join(known)}")
    return values
