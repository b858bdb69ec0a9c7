"""Nights on the disk: one folder each, named by the UTC time at which it began.

    <history>/20261122T030000Z/{state.json, items.jsonl, report.json, report.xml, report.html}

state.json says what the night covers, items.jsonl grows by a line per finished item, report.json
comes last and marks the night as finished. Half-written or foreign files are left out with a note;
loading never fails because of a file's content.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AwareDatetime, ValidationError

from driftscope_probes.device.environment import compare_environments
from driftscope_probes.durable_file import append_line, publish, write_whole
from driftscope_probes.nightly.item import Finding
from driftscope_probes.nightly.report import NightKey, NightlyReport
from driftscope_probes.record import Record
from driftscope_probes.verdicts import ItemVerdictName

Kind = TypeVar("Kind", bound=Record)
STATE, ITEMS, REPORT = "state.json", "items.jsonl", "report.json"
SCHEMA = "1"
STAMP_FORMAT = "%Y%m%dT%H%M%SZ"
_STAMP = re.compile(r"\d{8}T\d{6}Z")
_PARTIAL = ".partial-"
#: How many nights are considered: two months. An item not seen for longer counts as new.
MOST_NIGHTS = 60
#: A report of ten thousand items has about 20 MB; a larger file is not ours.
MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Night:
    folder: Path
    config_sha256: str
    key: Mapping[str, Any]  # hardware and versions
    started_at: datetime
    environment: Mapping[str, Any]
    findings: Mapping[str, Finding]  # by the id of the item, as far as the night got
    report: NightlyReport | None  # None: the night did not end

    def finish(self, item_id: str, finding: Finding) -> None:
        """Record a finding; it survives whatever happens next."""
        append_line(
            self.folder / ITEMS,
            {
                "id": item_id,
                "verdict": finding.verdict,
                "seconds": round(finding.seconds, 3),
                "detail": finding.detail,
                "replay": finding.replay,
            },
        )

    def close(self, pages: Mapping[str, str], report: str) -> None:
        """Write the report last: a night that has one is complete."""
        for name, text in pages.items():
            write_whole(self.folder / name, text)
        write_whole(self.folder / REPORT, report)


@dataclass(frozen=True, slots=True)
class History:
    nights: tuple[Night, ...]  # newest first
    notes: tuple[str, ...]  # what was left out, and why

    def finished(self) -> Iterator[Night]:
        return (night for night in self.nights if night.report is not None)

    def unfinished(
        self, config_sha256: str, environment: Mapping[str, Any], since: datetime
    ) -> Night | None:
        """The newest night, if it did not end and everything it covers is unchanged."""
        for night in self.nights[:1]:
            same = night.config_sha256 == config_sha256 and not compare_environments(
                night.environment, environment
            )
            if night.report is None and same and night.started_at >= since:
                return night
        return None


def load_history(folder: Path) -> History:
    notes: list[str] = []
    nights: list[Night] = []
    if folder.is_dir():
        names = sorted((path.name for path in folder.iterdir()), reverse=True)
        for name in [name for name in names if _STAMP.fullmatch(name)][:MOST_NIGHTS]:
            try:
                nights.append(_load_night(folder / name, notes))
            except Unreadable as error:
                notes.append(f"left out {name}: {error}")
    return History(tuple(nights), tuple(notes))


def start_night(
    folder: Path, config_sha256: str, key: Mapping[str, Any], environment: Mapping[str, Any]
) -> Night:
    """A new folder, complete with its state.json or absent."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(_PARTIAL + "*"):
        shutil.rmtree(left)
    began = datetime.now(UTC).replace(microsecond=0)
    # Two nights within a second (in tests, by hand): the later takes the next free name.
    while (folder / began.strftime(STAMP_FORMAT)).exists():
        began += timedelta(seconds=1)
    state = {
        "schema_version": SCHEMA,
        "config_sha256": config_sha256,
        "key": key,
        "started_at": began.isoformat(),
        "environment": environment,
    }
    stamp = began.strftime(STAMP_FORMAT)
    partial = folder / (_PARTIAL + stamp)
    partial.mkdir()
    write_whole(partial / STATE, json.dumps(state, allow_nan=False))
    publish(partial, folder / stamp)
    return Night(folder / stamp, config_sha256, key, began, environment, {}, None)


class Unreadable(ValueError):
    """A file of the history that is missing, half written or not ours."""


def _load_night(folder: Path, notes: list[str]) -> Night:
    stored = _object(folder / STATE)
    state = _checked(_State, stored, STATE)
    try:
        report = read_report(_object(folder / REPORT)) if (folder / REPORT).exists() else None
    except Unreadable as error:
        report = None
        notes.append(f"{folder.name} counts as not ended: {error}")
    return Night(
        folder,
        state.config_sha256,
        stored["key"],
        state.started_at,
        stored["environment"],
        dict(_findings(folder, notes)),
        report,
    )


def _findings(folder: Path, notes: list[str]) -> Iterator[tuple[str, Finding]]:
    path = folder / ITEMS
    if not path.exists():
        return
    for number, line in enumerate(_bytes(path).split(b"\n"), start=1):
        if not line:
            continue
        try:
            item = _checked(_Item, _parsed(line, ITEMS), ITEMS)
        except Unreadable as error:
            notes.append(f"{folder.name}: line {number} of {ITEMS} is left out: {error}")
            continue
        yield item.id, Finding(item.verdict, item.seconds, item.detail.to_dict(), item.replay)


def read_report(stored: Mapping[str, Any]) -> NightlyReport:
    """A report with everything that later nights read. Raises Unreadable."""
    _checked(_Ended, stored, REPORT)
    return _checked(NightlyReport, stored, REPORT)


class _Environment(Record):
    """What `compare_environments` reads of it."""

    hardware: dict[str, Any]
    packages: dict[str, Any]
    libraries: dict[str, Any]
    kernel_packages: dict[str, Any]
    variables: dict[str, Any]
    python: str
    platform: str


class _State(Record):
    config_sha256: str
    key: dict[str, Any]
    started_at: AwareDatetime
    environment: _Environment


class _Detail(Record):
    bits: str | None = None


class _Found(Record):
    detail: _Detail


class _Item(_Found):
    """A line of items.jsonl."""

    id: str
    verdict: ItemVerdictName
    seconds: float
    replay: str | None = None


class _Ended(Record):
    """What a night needs beyond its type to be comparable."""

    key: NightKey
    environment: _Environment
    items: list[_Found]


def _checked(kind: type[Kind], stored: Mapping[str, Any], name: str) -> Kind:
    try:
        return kind.read(stored)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Unreadable(f"{name}: {where}: {first['msg']}") from error


def _object(path: Path) -> dict[str, Any]:
    return _parsed(_bytes(path), path.name)


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise Unreadable(f"{path.name}: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise Unreadable(f"{path.name} has more than {MOST_BYTES:,} bytes")
    return data


def _parsed(data: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{name} is half written or not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Unreadable(f"{name} is not a JSON object")
    return value
