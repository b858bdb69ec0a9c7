"""A night judged against earlier ones: what changed, what alarms, and the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic.json_schema import SkipJsonSchema

from driftscope_probes.device.environment import ALARMING, Change, compare_environments, differences
from driftscope_probes.nightly.item import Finding, Item, Kind
from driftscope_probes.record import Record
from driftscope_probes.verdicts import NOT_RUN, RANKS, ItemVerdictName

AS_EXPECTED: Final = 0
CHANGED: Final = 1
COULD_NOT_RUN: Final = 2
Direction = Literal["better", "worse", "new"]
#: Most items with other bits that are named; the list of changes has all.
MOST_NAMED = 5
#: Digits of a hash in a list of changes; items and the configuration have all of it.
SHOWN_DIGITS = 12


class ItemReport(Record):
    """An item of a night. What has a default is not part of what the API describes."""

    id: str
    kind: Kind
    expected: ItemVerdictName
    verdict: ItemVerdictName
    previous: ItemVerdictName | None
    previous_expected: SkipJsonSchema[str | None] = None
    previous_night: SkipJsonSchema[str | None] = None  # when it began
    changed: Direction | None
    other_bits: SkipJsonSchema[bool] = False
    as_expected: bool
    seconds: float
    settings: SkipJsonSchema[dict[str, Any]] = {}
    detail: dict[str, Any]
    replay: str | None


class Outcome(Record):
    """What becomes of an item over many nights."""

    id: str
    verdict: str
    expected: str
    changed: str | None
    as_expected: bool


class NightConfig(Record):
    name: str
    sha256: str


class NightKey(Record):
    """Nights of one key are comparable without a word."""

    hardware: dict[str, Any] = {}
    versions: dict[str, Any] = {}


class NightlyReport(Record):
    """The object that `driftscope nightly --json` prints."""

    schema_version: Literal["1"]
    kind: Literal["nightly"]
    exit_code: Literal[0, 1, 2]  # as expected, something changed, something could not be run
    started_at: str
    finished_at: str
    config: NightConfig
    key: SkipJsonSchema[NightKey] = NightKey()
    alarms: tuple[str, ...]  # a line for each reason of exit code 1
    items: tuple[ItemReport, ...]
    changed_environment: tuple[Change, ...]
    environment: dict[str, Any]
    resumed: int  # items that an interrupted start of the same night had finished
    budget_s: SkipJsonSchema[float] = 0.0
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Earlier:
    """The last night on which an item ran."""

    verdict: str
    expected: str
    settings: Mapping[str, Any]
    night: str  # when that night began
    bits: str | None = None  # hash of what it computed; None: unknown, or not repeatable


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
        """Since the last night on which it ran; also None where it did not run tonight."""
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
        """Whether the bits differ from those of the last night with the same settings."""
        earlier = self.earlier
        if earlier is None or earlier.bits is None or self.bits is None:
            return False
        same = dict(earlier.settings) == dict(self.item.settings)
        return same and earlier.bits != self.bits

    @property
    def alarming(self) -> bool:
        """A verdict that is new in the list has not changed."""
        return self.finding.ran and (not self.as_expected or self.changed in ("better", "worse"))

    def report(self) -> ItemReport:
        earlier = self.earlier
        fields = {
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
        return ItemReport.read(fields)


def judge(
    items: Iterable[Item], findings: Mapping[str, Finding], reports: Sequence[NightlyReport]
) -> tuple[JudgedItem, ...]:
    """`reports`: earlier nights of the same hardware, newest first."""
    earlier: dict[str, Earlier] = {}
    for report in reports:
        for old in report.items:
            if old.verdict not in NOT_RUN.values():
                bits = old.detail.get("bits")
                before = Earlier(old.verdict, old.expected, old.settings, report.started_at, bits)
                earlier.setdefault(old.id, before)
    return tuple(JudgedItem(item, findings[item.id], earlier.get(item.id)) for item in items)


def comparable(
    reports: Sequence[NightlyReport], hardware: Mapping[str, Any]
) -> list[NightlyReport]:
    """Nights on the same hardware; if there are none, all: then the hardware has changed."""
    same = [report for report in reports if report.key.hardware == hardware]
    return same or list(reports)


def changed_environment(
    last: NightlyReport | None,
    environment: Mapping[str, Any],
    config_sha256: str,
    judged: Iterable[JudgedItem],
) -> tuple[Change, ...]:
    """Compared with the last `comparable` night; items' settings with their own last night."""
    if last is None:
        return ()
    changes = list(compare_environments(last.environment, environment))
    before = {"configuration": last.config.sha256[:SHOWN_DIGITS]}
    changes += differences("config", before, {"configuration": config_sha256[:SHOWN_DIGITS]})
    for one in judged:
        if one.earlier is not None:
            prefix = f"{one.item.id}: "
            expected = {"expected": one.earlier.expected}
            changes += differences("config", expected, {"expected": one.item.expected}, prefix)
            changes += differences("setting", one.earlier.settings, one.item.settings, prefix)
        if one.other_bits:
            changes.append(_bits_change(one))
    # All axes of a kernel share the same bits.
    return tuple({(change.kind, change.name): change for change in changes}.values())


def _bits_change(one: JudgedItem) -> Change:
    assert one.earlier is not None and one.earlier.bits is not None and one.bits is not None
    before, after = one.earlier.bits[:SHOWN_DIGITS], one.bits[:SHOWN_DIGITS]
    name = f"bits of {one.item.computation}"
    return Change(kind="bits", name=name, before=before, after=after)


def exit_code(judged: Iterable[JudgedItem], alarms: Sequence[str]) -> Literal[0, 1, 2]:
    """A fault outweighs what could not run: a night that breaks off after a fault gives 1."""
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
