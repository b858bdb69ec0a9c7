"""The state of a run or a step as one word and one sentence, and what moved."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection

from driftscope_service.numbers import limit_words, metric_words
from driftscope_service.numbers.metric_words import number
from driftscope_service.pages.words import RunState
from driftscope_service.runs.current import RunsService
from driftscope_service.runs.store.runs import Run
from driftscope_service.runs.store.steps import StepRepository

MOST: Final = 40
#: A change by less than a tenth is seen from both numbers.
TELLING: Final = 1.1


@dataclass(frozen=True, slots=True)
class Movement:
    metric: str
    kind: Literal["shifted", "trending"]
    step: int  # at which it began
    what: str


def movements(drift: Mapping[str, Any]) -> list[Movement]:
    found: list[Movement] = []
    for name, one in drift["metrics"].items():
        found += [_shift_movement(name, change) for change in one["change_points"]]
        if one["trend"] is not None:
            found.append(_trend_movement(name, one))
    return sorted(found, key=lambda movement: movement.step, reverse=True)[:MOST]


def _shift_movement(name: str, change: Mapping[str, Any]) -> Movement:
    before, after = (metric_words.value(name, change[key]) for key in ("before", "after"))
    unit = metric_words.metric(name).unit
    if before == after:
        return Movement(name, "shifted", change["step"], f"no longer constant at {before}")
    what = f"from {before} to {after}{' ' + unit if unit else ''}{_times(change['ratio'])}"
    return Movement(name, "shifted", change["step"], what)


def _times(ratio: float | None) -> str:
    """ "" for a number near 1 such as a correlation, whose ratio says nothing."""
    if ratio is None or ratio <= 0 or 1 / TELLING < ratio < TELLING:
        return ""
    return f", {number(ratio)} times"


def _trend_movement(name: str, one: Mapping[str, Any]) -> Movement:
    trend = one["trend"]
    return Movement(name, "trending", trend["from_step"], f"{slope(name, one)} per 100 steps")


def slope(name: str, one: Mapping[str, Any]) -> str:
    """Of a trend, per 100 steps, with its sign."""
    found = one["trend"]["per_100_steps"]
    sign = "+" if found > 0 else "−"
    if one["scale"] == "log":
        return f"{sign}{number(abs(found) * 100)} %"
    return f"{sign}{metric_words.with_unit(name, abs(found))}"


#: So many causes are named; the rest is counted.
NAMED: Final = 2


NO_STEPS: Final = RunState("none", "no steps", "No complete step has arrived yet.")


def run_state(
    last_step: int | None,
    crossed: Sequence[Mapping[str, Any]],
    drift: Mapping[str, Any] | None,
) -> RunState:
    """`crossed`: crossed_limits of the last step. `drift`: None where it is not worked out."""
    if last_step is None:
        return NO_STEPS
    moved = "" if drift is None else _movement(drift)
    if crossed:
        sentence = f"Step {last_step:,} is beyond {crossed_sentence(crossed)}"
        return RunState("bad", "beyond limits", f"{sentence}{'; ' + moved if moved else ''}.")
    if drift is None:
        return RunState("good", "within limits", f"Step {last_step:,} is within every limit.")
    state = drift["state"]
    if state in ("trending", "shifted"):
        return RunState("watch", state, f"Within every limit, but {moved}.")
    if state == "not_enough_steps":
        return RunState(
            "none",
            "too few steps",
            f"Within every limit; {drift['steps']} steps are too few to tell drift from noise.",
        )
    return RunState(
        "good",
        "steady",
        f"Within every limit, and no number has moved over {drift['steps']:,} steps.",
    )


def crossed_sentence(crossed: Sequence[Mapping[str, Any]]) -> str:
    named = [_limit(one) for one in crossed[:NAMED]]
    more = len(crossed) - len(named)
    if more:
        named.append(f"{more} more")
    count = "a published limit" if len(crossed) == 1 else f"{len(crossed)} published limits"
    return f"{count}: {_listed(named)}"


def _limit(one: Mapping[str, Any]) -> str:
    shown = limit_words.crossed(one)
    limit = f"{shown.limits[0].text} {shown.unit}".rstrip()
    return f"{shown.label} is {shown.value_with_unit} (limit {limit})"


def _movement(drift: Mapping[str, Any]) -> str:
    """ "" where nothing moved."""
    state = drift["state"]
    if state not in ("trending", "shifted"):
        return ""
    moving = [name for name, one in drift["metrics"].items() if one["state"] == state]
    moving.sort(key=_importance)
    told = _trend if state == "trending" else _shift
    first = told(moving[0], drift["metrics"][moving[0]])
    others = len(moving) - 1
    if not others:
        return first
    return f"{first}, and {others} other number{'s' if others > 1 else ''} {state}"


def _importance(name: str) -> int:
    headline = metric_words.HEADLINE
    return headline.index(name) if name in headline else len(headline)


def _shift(name: str, one: Mapping[str, Any]) -> str:
    change = one["change_points"][-1]
    before, after = (metric_words.value(name, change[key]) for key in ("before", "after"))
    if before == after:
        return f"{metric_words.label(name)} is no longer constant since step {change['step']:,}"
    unit = metric_words.metric(name).unit
    return (
        f"{metric_words.label(name)} moved from {before} to {after}{' ' + unit if unit else ''} "
        f"at step {change['step']:,}"
    )


def _trend(name: str, one: Mapping[str, Any]) -> str:
    since = f"since step {one['trend']['from_step']:,}"
    return f"{metric_words.label(name)} has been moving by {slope(name, one)} per 100 steps {since}"


def _listed(parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def run_verdict(service: RunsService, connection: Connection, run: Run, *, drift: bool) -> RunState:
    """`drift`: work it out, which takes up to a second for ten thousand steps."""
    if run.last_step is None:
        return NO_STEPS
    found = service.run_drift.of(run, connection) if drift else None
    return run_state(run.last_step, crossed_at(connection, run.name, run.last_step), found)


def crossed_at(connection: Connection, run: str, step: int) -> list[dict[str, Any]]:
    crossed: list[dict[str, Any]] = analysis_at(connection, run, step)["crossed_limits"]
    return crossed


def analysis_at(connection: Connection, run: str, step: int) -> dict[str, Any]:
    """Of a step that is complete."""
    stored = StepRepository(connection).get(run, step)
    assert stored is not None, "a last step is complete"
    analysis: dict[str, Any] = json.loads(stored.analysis)
    return analysis


def step_state(crossed: Sequence[Mapping[str, Any]]) -> RunState:
    if crossed:
        return RunState("bad", "beyond limits", f"This step is beyond {crossed_sentence(crossed)}.")
    return RunState("good", "within limits", "This step is within every published limit.")
