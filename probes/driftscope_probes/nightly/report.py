"""A night judged against earlier ones: what changed, what alarms, and the report of all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from driftscope_probes.device.environment_change import (
    ALARMING,
    Change,
    compare_environments,
    differences,
)
from driftscope_probes.nightly.item import Finding, Item
from driftscope_probes.verdicts import NOT_RUN, RANKS

AS_EXPECTED, CHANGED, COULD_NOT_RUN = 0, 1, 2
Direction = Literal["better", "worse", "new"]
#: Of those that compute other bits; the list of changes has all.
MOST_NAMED = 5
#: Of a hash, in a list of changes; items and the configuration have the whole.
SHOWN_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Earlier:
    """The last night on which an item ran."""

    verdict: str
    expected: str
    settings: Mapping[str, Any]
    night: str  # when that night began
    bits: str | None = None  # hash of what it computed; None: not told, or never twice the same


@dataclass(frozen=True, slots=True)
class JudgedItem:
    item: Item
    finding: Finding
    earlier: Earlier | None

    @property
    def as_expected(self) -> bool:
        return self.finding.verdict == self.item.expected

    @property
    def changed(self) -> Direction | None:
        """Since the last night on which it ran; None too where it did not run tonight."""
        if not self.finding.ran:
            return None
        if self.earlier is None:
            return "new"
        ranks = RANKS[self.item.kind]
        before, after = ranks.index(self.earlier.verdict), ranks.index(self.finding.verdict)
        if before == after:
            return None
        return "better" if after > before else "worse"

    @property
    def bits(self) -> str | None:
        found: str | None = self.finding.detail.get("bits")
        return found

    @property
    def other_bits(self) -> bool:
        """Whether the same question was answered with other bits than on the last such night."""
        earlier = self.earlier
        if earlier is None or earlier.bits is None or self.bits is None:
            return False
        same = dict(earlier.settings) == dict(self.item.settings)
        return same and earlier.bits != self.bits

    @property
    def alarming(self) -> bool:
        """A verdict that is new in the list is none that changed."""
        return self.finding.ran and (not self.as_expected or self.changed in ("better", "worse"))

    def to_dict(self) -> dict[str, Any]:
        earlier = self.earlier
        return {
            "id": self.item.id,
            "kind": self.item.kind,
            "expected": self.item.expected,
            "verdict": self.finding.verdict,
            "previous": None if earlier is None else earlier.verdict,
            "previous_expected": None if earlier is None else earlier.expected,
            "previous_night": None if earlier is None else earlier.night,
            "changed": self.changed,
            "other_bits": self.other_bits,
            "as_expected": self.as_expected,
            "seconds": round(self.finding.seconds, 3),
            "settings": dict(self.item.settings),
            "detail": dict(self.finding.detail),
            "replay": self.finding.replay,
        }


def judge(
    items: Iterable[Item], findings: Mapping[str, Finding], reports: Sequence[Mapping[str, Any]]
) -> tuple[JudgedItem, ...]:
    """`reports`: earlier nights of the same hardware, newest first."""
    earlier: dict[str, Earlier] = {}
    for report in reports:
        for old in report["items"]:
            if old["verdict"] not in NOT_RUN.values():
                earlier.setdefault(old["id"], _earlier(old, report["started_at"]))
    return tuple(JudgedItem(item, findings[item.id], earlier.get(item.id)) for item in items)


def _earlier(old: Mapping[str, Any], night: str) -> Earlier:
    bits = old["detail"].get("bits")
    return Earlier(old["verdict"], old["expected"], old["settings"], night, bits)


def comparable(
    reports: Sequence[Mapping[str, Any]], hardware: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """Those of the same hardware; where there is none, all: the hardware is the change then."""
    same = [report for report in reports if report["key"]["hardware"] == hardware]
    return same or list(reports)


def changed_environment(
    last: Mapping[str, Any] | None,
    environment: Mapping[str, Any],
    config_sha256: str,
    judged: Iterable[JudgedItem],
) -> tuple[Change, ...]:
    """Against the last night of `comparable`, and settings of items against their own last one."""
    if last is None:
        return ()
    changes = list(compare_environments(last["environment"], environment))
    before = {"configuration": last["config"]["sha256"][:SHOWN_DIGITS]}
    changes += differences("config", before, {"configuration": config_sha256[:SHOWN_DIGITS]})
    for one in judged:
        if one.earlier is not None:
            prefix = f"{one.item.id}: "
            expected = {"expected": one.earlier.expected}
            changes += differences("config", expected, {"expected": one.item.expected}, prefix)
            changes += differences("setting", one.earlier.settings, one.item.settings, prefix)
        if one.other_bits:
            changes.append(_bits_change(one))
    # Of all axes of a kernel the bits are one.
    return tuple({(change.kind, change.name): change for change in changes}.values())


def _bits_change(one: JudgedItem) -> Change:
    assert one.earlier is not None and one.earlier.bits is not None and one.bits is not None
    before, after = one.earlier.bits[:SHOWN_DIGITS], one.bits[:SHOWN_DIGITS]
    return Change("bits", f"bits of {one.item.computation}", before, after)


def exit_code(judged: Iterable[JudgedItem], alarms: Sequence[str]) -> int:
    """What was found outweighs what was not: a night that breaks off after a fault gives 1."""
    if alarms:
        return CHANGED
    return AS_EXPECTED if all(one.finding.ran for one in judged) else COULD_NOT_RUN


def alarms(
    judged: Sequence[JudgedItem],
    changes: Iterable[Change],
    *,
    fail_on_environment: bool,
    fail_on_bits: bool,
) -> Iterator[str]:
    """One line for each reason of exit code 1."""
    for one in judged:
        if one.alarming:
            yield f"{one.item.id}: {_what(one)}"
    other = dict.fromkeys(one.item.computation for one in judged if one.other_bits)
    named = {one.item.computation for one in judged if one.alarming}
    quiet = [computation for computation in other if computation not in named]
    if fail_on_bits and quiet:
        yield _other_bits(quiet)
    if fail_on_environment:
        for change in changes:
            if change.kind in ALARMING:
                before, after = _shown(change.before), _shown(change.after)
                yield f"{change.name}: {before} last night, {after} now"


def _what(one: JudgedItem) -> str:
    words = [f"{one.finding.verdict}, expected {one.item.expected}"]
    if one.as_expected:
        words = [f"{one.finding.verdict} as expected"]
    if one.changed in ("better", "worse"):
        assert one.earlier is not None
        words.append(f"{one.earlier.verdict} before, so it is {one.changed} now")
    elif one.earlier is not None:
        words.append("the same as before")
    if one.earlier is not None and one.earlier.expected != one.item.expected:
        words.append(f"{one.earlier.expected} was expected then")
    return "; ".join(words)


def _other_bits(names: Sequence[str]) -> str:
    named = ", ".join(names[:MOST_NAMED])
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"bits: other than on the last night while verdicts hold: {named}{more}"


def _shown(value: Any) -> str:
    return "absent" if value is None else str(value)


SCHEMA = "1"


@dataclass(frozen=True, slots=True)
class NightlyResult:
    exit_code: int  # 0 as expected, 1 something changed, 2 something could not be run
    started_at: str
    finished_at: str
    config_name: str
    config_sha256: str
    key: Mapping[str, Any]  # {"hardware", "versions"}
    items: tuple[JudgedItem, ...]
    alarms: tuple[str, ...]  # a line for each reason of exit code 1
    changes: tuple[Change, ...]
    environment: Mapping[str, Any]
    resumed: int  # items that an interrupted start of the same night had finished
    budget_s: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA,
            "kind": "nightly",
            "exit_code": self.exit_code,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "config": {"name": self.config_name, "sha256": self.config_sha256},
            "key": dict(self.key),
            "alarms": list(self.alarms),
            "items": [item.to_dict() for item in self.items],
            "changed_environment": [change.to_dict() for change in self.changes],
            "environment": dict(self.environment),
            "resumed": self.resumed,
            "budget_s": self.budget_s,
            "notes": list(self.notes),
        }
