"""Jinja templates of self-contained reports, and the recorded settings that they list."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

ABSENT = "–"


@dataclass(frozen=True, slots=True)
class SettingRow:
    name: str
    values: tuple[str, ...]  # one per column

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


@dataclass(frozen=True, slots=True)
class SettingTable:
    columns: tuple[str, ...]  # dtypes or modes; one twice if its settings were not the same
    rows: tuple[SettingRow, ...]


def setting_table(metas: Sequence[Mapping[str, Any]]) -> SettingTable:
    unique: list[Mapping[str, Any]] = []
    for meta in metas:
        if meta not in unique:
            unique.append(meta)
    columns = [flat({name: meta[name] for name in meta if name != "side"}) for meta in unique]
    names = dict.fromkeys(name for column in columns for name in column)
    return SettingTable(
        columns=tuple(str(meta["dtype"]) for meta in unique),
        rows=tuple(
            SettingRow(
                name.removeprefix("settings."),
                tuple(column.get(name, ABSENT) for column in columns),
            )
            for name in names
            if name != "dtype"
        ),
    )


def flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """Dotted names to text: strings as they are, everything else as JSON writes it."""
    return dict(_flat(settings, ""))


def _flat(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            yield prefix + name, value
        else:
            yield prefix + name, json.dumps(value, ensure_ascii=False)


def page_environment() -> Environment:
    """A new one, for the caller to add filters to."""
    environment = Environment(
        loader=PackageLoader("driftscope_service", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["flat"] = flat
    return environment


@cache
def resource(*path: str) -> str:
    """Text of a file of the package."""
    return files("driftscope_service").joinpath(*path).read_text(encoding="utf-8")
