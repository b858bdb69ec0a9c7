"""Nights on the disk: one folder each, named by the UTC time at which it began.

    <history>/20261122T030000Z/{state.json, items.jsonl, report.json, report.xml, report.html}

state.json says what the night is of, items.jsonl grows by a line per finished item, report.json
comes last and makes the night a finished one. Whatever is half written or foreign is left out
with a note; loading never fails for what a file holds.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from driftscope_probes.device.environment_change import compare_environments
from driftscope_probes.durable_file import append_line, publish, write_whole
from driftscope_probes.nightly.item import Finding
from driftscope_probes.verdicts import NOT_RUN, RANKS

STATE, ITEMS, REPORT = "state.json", "items.jsonl", "report.json"
SCHEMA = "1"
STAMP_FORMAT = "%Y%m%dT%H%M%SZ"
_STAMP = re.compile(r"\d{8}T\d{6}Z")
_PARTIAL = ".partial-"
#: How many nights are looked at: two months. An item not seen for longer is a new one.
MOST_NIGHTS = 60
#: A report of ten thousand items has about 20 MB; more is not a file of ours.
MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Night:
    folder: Path
    config_sha256: str
    key: Mapping[str, Any]  # hardware and versions
    started_at: datetime
    environment: Mapping[str, Any]
    findings: Mapping[str, Finding]  # by the id of the item, as far as the night went
    report: Mapping[str, Any] | None  # None: the night did not end

    def finish(self, item_id: str, finding: Finding) -> None:
        """Record a finding; it outlives whatever happens next."""
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
        """The report last: a night that has one has everything."""
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
        """The newest night, if it did not end and all that it was of is still the same."""
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
    """A new folder, complete with its state.json or not there."""
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
    state = _object(folder / STATE)
    try:
        report = _object(folder / REPORT) if (folder / REPORT).exists() else None
        if report is not None:
            check_report(report)
    except Unreadable as error:
        report = None
        notes.append(f"{folder.name} counts as not ended: {error}")
    try:
        began = datetime.fromisoformat(_of(state, "started_at", str))
    except ValueError as error:
        raise Unreadable(f"{STATE}: started_at is no time: {error}") from error
    if began.tzinfo is None:
        raise Unreadable(f"{STATE}: started_at has no time zone")
    return Night(
        folder,
        _of(state, "config_sha256", str),
        _of(state, "key", dict),
        began,
        _environment(state),
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
            yield _finding(_parsed(line, ITEMS))
        except Unreadable as error:
            notes.append(f"{folder.name}: line {number} of {ITEMS} is left out: {error}")


def _finding(line: Mapping[str, Any]) -> tuple[str, Finding]:
    replay = line.get("replay")
    if replay is not None and not isinstance(replay, str):
        raise Unreadable("replay is no text")
    return _of(line, "id", str), Finding(
        verdict=_verdict(_of(line, "verdict", str)),
        seconds=float(_of(line, "seconds", (int, float))),
        detail=_detail(line),
        replay=replay,
    )


def check_report(report: Mapping[str, Any]) -> None:
    """What later nights read of it. Raises Unreadable."""
    _of(report, "started_at", str)
    _of(_of(report, "config", dict), "sha256", str)
    _of(_of(report, "key", dict), "hardware", dict)
    _environment(report)
    for item in _of(report, "items", list):
        if not isinstance(item, dict):
            raise Unreadable("an item is no object")
        _of(item, "id", str)
        _of(item, "expected", str)
        _of(item, "settings", dict)
        _detail(item)
        _verdict(_of(item, "verdict", str))


def _environment(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What `compare_environments` reads of it is there."""
    environment: dict[str, Any] = _of(fields, "environment", dict)
    for name in ("hardware", "packages", "libraries", "kernel_packages", "variables"):
        _of(environment, name, dict)
    for name in ("python", "platform"):
        _of(environment, name, str)
    return environment


def _detail(fields: Mapping[str, Any]) -> dict[str, Any]:
    detail: dict[str, Any] = _of(fields, "detail", dict)
    if not isinstance(detail.get("bits"), str | None):
        raise Unreadable("bits are no text")
    return detail


def _verdict(name: str) -> str:
    if name not in (*RANKS["kernel"], *RANKS["engine"], *NOT_RUN.values()):
        raise Unreadable(f"unknown verdict {name!r}")
    return name


def _of(fields: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    value = fields.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Unreadable(f"{name} is missing or of another kind")
    return value


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
        raise Unreadable(f"{name} is half written or no JSON: {error}") from error
    if not isinstance(value, dict):
        raise Unreadable(f"{name} is no JSON object")
    return value
