"""The state of a run or a step as one word and one sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection

from driftscope_probes.drift.split import AFTER
from driftscope_probes.plural import counted
from driftscope_service.numbers import limit_words, metric_words
from driftscope_service.pages.words import RunState
from driftscope_service.runs.current import RunsService
from driftscope_service.runs.pages.run_events import event_sentence
from driftscope_service.runs.store.runs import Run
from driftscope_service.runs.store.steps import StepRepository, StoredStep

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
        return RunState("none", "too few steps", f"Within every limit; {_too_few(drift)}.")
    if moved:
        # Only what resumes did can have come and gone.
        return RunState("watch", "moved at a resume", f"Within every limit, but {moved}.")
    return RunState("good", "steady", f"Within every limit, and {_steady(drift)}.")


def _too_few(drift: Mapping[str, Any]) -> str:
    steps = counted(drift["steps"], "step")
    are = "is" if drift["steps"] == 1 else "are"
    if drift["steps"] <= AFTER:
        return f"{steps} {are} too few to compare with one another"
    return f"{steps} {are} too few to tell drift from noise: only a large jump would show so far"


def _steady(drift: Mapping[str, Any]) -> str:
    """Names the numbers that could not be looked at over all steps."""
    told = f"no number has moved over {drift['steps']:,} steps"
    metrics = drift["metrics"]
    unknown = [name for name, one in metrics.items() if one["state"] == "not_enough_steps"]
    if not unknown:
        return told
    named = [f"{metric_words.label(name)} ({metrics[name]['steps']})" for name in unknown[:NAMED]]
    if len(unknown) > NAMED:
        named.append(f"{len(unknown) - NAMED} more")
    return f"{told}; too few values to tell: {_listed(named)}"


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
    """The newest event at which a number moved; "" where none did."""
    events = [event for event in drift["events"] if event["numbers"]]
    if not events:
        return ""
    earlier = len(events) - 1
    before = f"; {counted(earlier, 'earlier event')}" if earlier else ""
    return f"{event_sentence(events[-1])}{before}"


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


def analysis_at(
    connection: Connection, run: str, step: int, *, attempt: int | None = None
) -> dict[str, Any]:
    """Of a step that is complete, in the series or in one attempt."""
    analysis: dict[str, Any] = json.loads(
        stored_at(connection, run, step, attempt=attempt).analysis
    )
    return analysis


def stored_at(
    connection: Connection, run: str, step: int, *, attempt: int | None = None
) -> StoredStep:
    stored = StepRepository(connection).get(run, step, attempt=attempt)
    assert stored is not None, "a last step is complete"
    return stored


def step_state(crossed: Sequence[Mapping[str, Any]]) -> RunState:
    if crossed:
        return RunState("bad", "beyond limits", f"This step is beyond {crossed_sentence(crossed)}.")
    return RunState("good", "within limits", "This step is within every published limit.")
