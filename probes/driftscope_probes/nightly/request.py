"""The nightly file (TOML) → NightlyConfig: every item that a night checks.

In: a path or text. Out: NightlyConfig, or a ConfigError that names table and key. Free of torch.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from driftscope_probes.dtypes import Dtype
from driftscope_probes.errors import RequestError
from driftscope_probes.nightly.item import (
    KERNEL_AXES,
    EngineItem,
    Item,
    KernelItem,
)
from driftscope_probes.nightly.work import request_of
from driftscope_probes.verdicts import KERNEL_AXIS_VERDICTS, RANKS

#: A kernel's name as the registry takes it: target/op/implementation.
KERNEL_NAME = r"^[A-Za-z0-9_.-]{1,64}/[A-Za-z0-9_.-]{1,64}/[A-Za-z0-9_.-]{1,64}$"
KernelName = Annotated[str, Field(pattern=KERNEL_NAME)]
#: Part of an id and of a file name.
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Threads = Annotated[int, Field(ge=1, le=64)]
Pattern = Annotated[str, Field(min_length=1, max_length=512)]
MOST_NAMES = 256
MOST_TABLES = 64
#: Two days: a longer night would still be running when the next but one is due.
MOST_MINUTES = 48 * 60.0

WHOLE = "all"


class Table(BaseModel):
    # strict: a quoted number is a mistake, not a number.
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


DEFAULT_FILE = Path(__file__).with_name("default.toml")
#: The shipped file has a few kilobytes; a thousand times as much is not a configuration.
MOST_BYTES = 1 << 20
MOST_ITEMS = 10_000
REMEDY = "correct the file; docs/nightly.md describes every field."


@dataclass(frozen=True, slots=True)
class NightlyConfig:
    name: str
    sha256: str  # hash of the file's bytes
    budget_s: float
    fail_on_environment: bool  # whether a change of hardware or versions alone gives exit 1
    fail_on_bits: bool  # whether other bits alone do
    items: tuple[Item, ...]


def read_config(path: Path) -> NightlyConfig:
    """Raises RequestError naming the file and the position in it."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RequestError(
            f"cannot read {path}: {error.strerror}.", remedy="give --config a TOML file."
        ) from error
    try:
        return parse_config(data)
    except ConfigError as error:
        raise RequestError(f"{path}: {error}.", remedy=REMEDY) from error


class ConfigError(ValueError):
    """What is wrong in a nightly file, and where."""


def parse_config(data: bytes) -> NightlyConfig:
    """Raises ConfigError."""
    if len(data) > MOST_BYTES:
        raise ConfigError(f"has more than {MOST_BYTES:,} bytes")
    try:
        tables = NightlyFile(**tomllib.loads(data.decode("utf-8")))
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(_places(error)) from error
    items = tuple(_items(tables))
    if not items:
        raise ConfigError("lists neither [[kernels]] nor [[engines]]")
    twice = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise ConfigError(f"{twice[0]} is in two tables; give one table of engines a label")
    return NightlyConfig(
        name=tables.name,
        sha256=hashlib.sha256(data).hexdigest(),
        budget_s=60 * tables.budget_minutes,
        fail_on_environment=tables.environment_change == "fail",
        fail_on_bits=tables.bits_change == "fail",
        items=items,
    )


def _items(tables: NightlyFile) -> Iterator[Item]:
    size = sum(table.size for table in tables.kernels)
    size += sum(table.size for table in tables.engines)
    # Checked before they are built: five lists of 256 names multiply to a trillion.
    if size > MOST_ITEMS:
        raise ConfigError(f"lists more than {MOST_ITEMS:,} items")
    for number, kernels in enumerate(tables.kernels):
        yield from _overridden(_kernel_items(kernels), kernels.override, f"kernels[{number}]")
    for number, engines in enumerate(tables.engines):
        yield from _overridden(_engine_items(engines), engines.override, f"engines[{number}]")


def _kernel_items(table: KernelTable) -> list[Item]:
    whole: dict[str, None] = {WHOLE: None}
    return [
        KernelItem(
            *(name, dtype, threads, whole.get(axis, axis), table.quick, table.seed),
            expected=table.expected,
        )
        for name, dtype, threads, axis in product(
            table.names, table.dtypes, table.threads, table.axes
        )
    ]


def _engine_items(table: EngineTable) -> list[Item]:
    return [
        EngineItem(
            *(model, engine, kernels, dtype, axis),
            label=table.label,
            settings=table.settings,
            expected=table.expected,
        )
        for model, engine, kernels, dtype, axis in product(
            table.models, table.engines, table.kernels, table.dtypes, table.axes
        )
    ]


def _overridden(items: list[Item], overrides: Sequence[Override], where: str) -> Iterator[Item]:
    used: dict[str, str] = {}
    for number, override in enumerate(overrides):
        matched = [item for item in items if fnmatchcase(item.id, override.items)]
        if not matched:
            raise ConfigError(
                f"{where}.override[{number}]: {override.items!r} matches no item of its table, "
                f"such as {items[0].id}"
            )
        for item in matched:
            if item.id in used:
                raise ConfigError(
                    f"{where}.override[{number}]: {item.id} is matched by {used[item.id]!r} already"
                )
            used[item.id] = override.items
        chosen = {item.id for item in matched}
        items = [
            replace(item, expected=override.expected) if item.id in chosen else item
            for item in items
        ]
    for item in items:
        _check_expected(item, where)
        if isinstance(item, EngineItem):
            try:
                request_of(item)
            except ValueError as error:
                raise ConfigError(f"{where}: {item.id}: {error}") from error
        yield item


def _check_expected(item: Item, where: str) -> None:
    known = RANKS[item.kind]
    if isinstance(item, KernelItem) and item.axis is not None:
        known = KERNEL_AXIS_VERDICTS
    if item.expected not in known:
        raise ConfigError(
            f"{where}: {item.expected!r} is expected of {item.id}; possible are {', '.join(known)}"
        )


def _places(error: ValidationError) -> str:
    return "; ".join(f"{_place(one['loc'])}: {one['msg']}" for one in error.errors())


def _place(location: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".") or "file"
