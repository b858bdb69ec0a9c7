"""`driftscope compare RUN_A RUN_B`: two runs of a running service, or two steps, side by side.

The numbers, ratios and the sentence are those of the service's page /compare.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from driftscope_client.errors import RUN_NAME
from driftscope_probes.drift import SERIES
from driftscope_probes.errors import RequestError
from driftscope_probes.gates import RATIO, Judged, Side
from driftscope_probes.numbers import GROUPS, NUMBERS
from driftscope_service.auth.service_call import DEFAULT_URL, Url, call
from driftscope_service.numbers import diagnosis_words as words
from driftscope_service.terminal.commands import Json, print_json
from driftscope_service.terminal.fail_on import (
    FailOnOfTwo,
    exit_where_a_rule_holds,
    outcome_of,
    with_outcome,
)
from driftscope_service.terminal.listing import print_list

if TYPE_CHECKING:
    from driftscope_service.runs.pages.compared import Row

COLUMNS: Final = ("number", "A", "B", "B / A", "limits")
#: Every number of a comparison, in reading order.
EVERY: Final = tuple(row.name for of_group in GROUPS.values() for row in of_group)
_NAMED: Final = "Name of a run, or RUN:STEP; a run alone stands for its last step."


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One side as the API answers."""

    run: str
    step: int
    numbers: Mapping[str, Any]
    diagnosis: Mapping[str, Any] | None  # None: an older version stored the step
    crossed: Sequence[str]
    rollout_dtype: str | None
    trainer_dtype: str | None

    @property
    def label(self) -> str:
        return f"{self.run}, step {self.step}"

    @property
    def sentence(self) -> str:
        diagnosis = words.read_diagnosis(self.diagnosis)
        return "stored without a diagnosis" if diagnosis is None else diagnosis.sentence

    def judged(self, side: Side) -> Judged:
        return Judged(self.numbers, self.diagnosis, self.label, side)

    def to_dict(self) -> dict[str, Any]:
        judged = self.judged("a")
        return {
            **{"run": self.run, "step": self.step},
            "verdict": None if self.diagnosis is None else self.diagnosis["verdict"],
            "excess": None if self.diagnosis is None else self.diagnosis["excess"],
            "cause": judged.cause,
            "crossed_limits": list(self.crossed),
            "comparison": dict(self.numbers),
        }


def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help=f"The one before. {_NAMED}")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help=f"The one to judge. {_NAMED}")],
    url: Url = DEFAULT_URL,
    every_number: Annotated[bool, typer.Option("--all", help="Every number.")] = False,
    fail_on: FailOnOfTwo = None,
    json_: Json = False,
) -> None:
    """Say how two runs, or two steps, of a running service differ."""
    # Here, since the other commands need no web framework and start faster without.
    from driftscope_service.runs.pages.compared import rows

    a, b = compared_run(url, run_a), compared_run(url, run_b)
    ratios = {name: distance_ratio(name, a.numbers, b.numbers) for name in EVERY}
    judged = [a.judged("a"), b.judged("b"), Judged(ratios, None, f"{b.run} / {a.run}", RATIO)]
    outcome = outcome_of(fail_on, judged)
    if json_:
        print_json(with_outcome(_answer(a, b, ratios), outcome))
    else:
        _print(a, b, rows(a, b, EVERY if every_number else SERIES))
    exit_where_a_rule_holds(outcome)


def compared_run(url: str, named: str) -> ComparedRun:
    """Raises RequestError for what is no name, ApiError for what is not there."""
    name, colon, digits = named.partition(":")
    if not RUN_NAME.fullmatch(name) or (colon and not digits.isdecimal()):
        raise RequestError(
            f"{named!r} is neither a run nor RUN:STEP.",
            remedy="use letters, digits, '.', '_' and '-' for the run, and a number for the step.",
        )
    run = call("GET", url, f"/v1/runs/{name}").json()
    if run["last_step"] is None:
        raise RequestError(
            f"the run {name!r} has no complete step yet.", remedy="push one, or complete it."
        )
    step = int(digits) if colon else run["last_step"]
    stored = call("GET", url, f"/v1/runs/{name}/steps/{step}").json()
    diagnosis = stored.get("diagnosis") if colon else _of_all_steps(url, name)
    return ComparedRun(
        **{"run": name, "step": step, "numbers": stored["comparison"], "diagnosis": diagnosis},
        crossed=[one["metric"] for one in stored["crossed_limits"]],
        rollout_dtype=stored["metadata"].get("rollout_dtype", run["rollout_dtype"]),
        trainer_dtype=stored["metadata"].get("trainer_dtype", run["trainer_dtype"]),
    )


def _of_all_steps(url: str, run: str) -> dict[str, Any] | None:
    """Of the last step, with what the steps of the run show together."""
    query: dict[str, str | int | Sequence[str]] = {"limit": 1, "metrics": SERIES[0]}
    found: dict[str, Any] | None
    found = call("GET", url, f"/v1/runs/{run}/steps", query).json()["diagnosis"]
    return found


def distance_ratio(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> float | None:
    """How much further B is from agreement than A: 1 where both are equally far, infinite where
    only A agrees; None where a side has no value."""
    if a.get(name) is None or b.get(name) is None:
        return None
    first, second = (abs(of[name] - NUMBERS[name].ideal) for of in (a, b))
    if first == second:
        return 1.0
    return math.inf if first == 0 else float(second / first)


def _answer(a: ComparedRun, b: ComparedRun, ratios: Mapping[str, float | None]) -> dict[str, Any]:
    """JSON has no infinity: what has none is null."""
    from driftscope_service.runs.pages.compared import compared_state

    state = compared_state(a, b)
    finite = {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in ratios.items()
    }
    return {
        **{"a": a.to_dict(), "b": b.to_dict(), "ratios": finite},
        **{"state": state.word, "sentence": state.sentence},
    }


def _print(a: ComparedRun, b: ComparedRun, shown: Sequence[Row]) -> None:
    from driftscope_service.runs.pages.compared import compared_state

    console = Console()
    for letter, one in (("A", a), ("B", b)):
        console.print(Text(f"{letter}  {one.label}: {one.sentence}"), soft_wrap=True)
    console.print(Text(compared_state(a, b).sentence), soft_wrap=True)
    console.print()
    print_list(
        COLUMNS, ([row.metric.name, row.a, row.b, row.ratio, row.limits] for row in shown), console
    )
