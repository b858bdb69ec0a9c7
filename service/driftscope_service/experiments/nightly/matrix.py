"""Items over nights: the outcome of each, most urgent first.

In: Nights, newest first. Out: NightMatrix, the state of the last night in words, PlotData.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from driftscope_probes.nightly.report import ItemReport, NightlyReport
from driftscope_probes.verdicts import OUTCOMES
from driftscope_service.experiments.nightly.store import Night
from driftscope_service.experiments.nightly.terminal import counts, state
from driftscope_service.pages import words as moment
from driftscope_service.pages.plot_data import PlotData
from driftscope_service.pages.words import RunState

#: The symbol in a cell; words accompany it for those who cannot see it.
SYMBOLS: Final[Mapping[str, str]] = {
    "worse": "▼",
    "unexpected": "!",
    "better": "▲",
    "not run": "∅",
    "new": "+",
    "as expected": "✓",
}
#: States of an item that need no attention.
QUIET: Final = ("as expected", "new")
_COLUMNS: Final = (
    *("night", "started_at", "exit_code", "item"),
    *("state", "verdict", "expected", "changed", "as_expected"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    state: str
    verdict: str
    expected: str

    @property
    def told(self) -> str:
        if self.state in QUIET:
            return f"{self.state}: {self.verdict}"
        return f"{self.state}: {self.verdict}, {self.expected} expected"


@dataclass(frozen=True, slots=True)
class ItemRow:
    item: str
    outcomes: list[Outcome | None]  # by night; None where the item was not there

    @property
    def quiet(self) -> bool:
        return all(one is None or one.state in QUIET for one in self.outcomes)


@dataclass(frozen=True, slots=True)
class NightMatrix:
    loud: list[ItemRow]  # what changed last comes first
    quiet: list[ItemRow]


def night_matrix(nights: Sequence[Night]) -> NightMatrix:
    found: dict[str, list[Outcome | None]] = {}
    for column, night in enumerate(nights):
        for item in night.items:
            row = found.setdefault(item.id, [None] * len(nights))
            row[column] = Outcome(state(item), item.verdict, item.expected)
    rows = [ItemRow(name, outcomes) for name, outcomes in sorted(found.items())]
    loud = sorted((row for row in rows if not row.quiet), key=_last_alarm)
    return NightMatrix(loud, [row for row in rows if row.quiet])


def night_state(night: Night) -> RunState:
    found = counts(night.items)
    told = ", ".join(f"{count} {name}" for name, count in found.items())
    when = f"the last night, {moment.ago(night.finished_at)}"
    sentence = f"{OUTCOMES[night.exit_code]} in {when}: {told}."
    if list(found) == ["as expected"]:
        every = len(night.outcomes)
        items = "The one item was" if every == 1 else f"All {every:,} items were"
        sentence = f"{items} as expected in {when}"
        # Hardware, versions or bits: the report says which.
        sentence += "; something else changed." if night.exit_code == 1 else "."
    if found.keys() & {"worse", "unexpected"}:
        return RunState("bad", "worse" if "worse" in found else "unexpected", sentence)
    if night.exit_code == 0:
        return RunState("good", "as expected", sentence)
    if night.exit_code == 1:
        return RunState("watch", "better" if "better" in found else "changed", sentence)
    return RunState("watch", "incomplete", sentence)


def outcomes_data(nights: Sequence[Night]) -> PlotData:
    rows = [
        [
            *(night.report_id, moment.iso(night.started_at), night.exit_code, item.id),
            *(state(item), item.verdict, item.expected, item.changed, item.as_expected),
        ]
        for night in nights
        for item in night.items
    ]
    return PlotData(_COLUMNS, rows, {"empty": "There is no night."})


def looked_at(report: NightlyReport) -> list[ItemReport]:
    """The items of a night that need attention, with their words."""
    items = [item.model_copy(update={"state": state(item)}) for item in report.items]
    return [item for item in items if state(item) not in QUIET]


def _last_alarm(row: ItemRow) -> tuple[int, str]:
    newest = next(i for i, one in enumerate(row.outcomes) if one and one.state not in QUIET)
    return newest, row.item
