"""The state of a run as one word and one sentence.

In: what the last step crossed, and the drift over steps. Out: RunState. Limits come first: a number
that nobody calls healthy counts more than one that moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from driftscope_service.export.number_format import number
from driftscope_service.web import metric_words
from driftscope_service.web.moment import RunState
from driftscope_service.web.movements import slope

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
    name = one["metric"]
    value = "not finite" if one["value"] is None else metric_words.with_unit(name, one["value"])
    return f"{metric_words.label(name)} is {value} (limit {number(one['limit'])})"


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
