"""A night in the terminal: what changed first, then a line per item."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.text import Text

from driftscope_probes.nightly.report import ItemReport, NightlyReport, Outcome
from driftscope_probes.plural import counted
from driftscope_probes.verdicts import ITEM_STATES, NOT_RUN, OUTCOMES

STYLES = {0: "green", 1: "red", 2: "magenta"}


def state(item: ItemReport | Outcome) -> str:
    """The state of an item in one word."""
    if item.verdict in NOT_RUN.values():
        return "not run"
    if item.changed in ("better", "worse"):
        return item.changed
    if not item.as_expected:
        return "unexpected"
    return "new" if item.changed == "new" else "as expected"


def counts(items: Iterable[ItemReport | Outcome]) -> dict[str, int]:
    """How many items are in each state, most urgent first."""
    states = [state(item) for item in items]
    return {name: states.count(name) for name in ITEM_STATES if name in states}


def print_night(result: NightlyReport, console: Console) -> None:
    """Lines, not a table: an id that is cut or folded cannot be used in a pattern."""
    _line(f"{'state':<12}{'verdict':<14}{'expected':<14}{'s':>7}  item", "bold", console)
    for item in result.items:
        word = state(item)
        columns = f"{item.verdict:<14}{item.expected:<14}{item.seconds:>7.1f}"
        console.print(
            Text.assemble((f"{word:<12}", _style(word)), f"{columns}  {item.id}"),
            soft_wrap=True,
        )
    for item in result.items:
        if state(item) == "not run":
            _line(f"{item.id}: not run, {item.detail['reason']}", "magenta", console)
    _print_alarms(result, console)
    for change in result.changed_environment:
        before, after = shown(change.before), shown(change.after)
        _line(f"Changed: {change.name}, {before} → {after}", "", console)
    if result.resumed:
        _line(
            f"From a start that was interrupted: {counted(result.resumed, 'item')}.", "dim", console
        )
    for note in result.notes:
        _line(f"Note: {note}", "dim", console)
    states = counts(result.items)
    summary = ", ".join(f"{count} {name}" for name, count in states.items())
    outcome = OUTCOMES[result.exit_code]
    if result.exit_code == 1 and not states.keys() & {
        "worse",
        "better",
        "unexpected",
    }:
        outcome += ", though no verdict"
    _line(f"{outcome}: {summary}.", STYLES[result.exit_code], console)


def _print_alarms(result: NightlyReport, console: Console) -> None:
    replays = {item.id: item.replay for item in result.items}
    for alarm in result.alarms:
        _line(alarm, "red", console)
        replay = replays.get(alarm.partition(": ")[0])
        if replay is not None:
            _line(f"  {replay}", "", console)


def shown(value: Any) -> str:
    return "absent" if value is None else str(value)


def _style(word: str) -> str:
    return {"as expected": "green", "new": "green", "not run": "magenta"}.get(word, "red")


def _line(text: str, style: str, console: Console) -> None:
    console.print(Text(text, style), soft_wrap=True)
