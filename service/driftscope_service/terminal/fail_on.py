"""`--fail-on RULE`: which results make a command exit with 1.

In: the texts of the option, and an analysis as JSON holds it. Out: the outcome, for `--json` and
for the exit. What a rule may be: driftscope_probes.gates.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Annotated, Any, Final

import typer

from driftscope_probes import gates
from driftscope_probes.errors import RequestError
from driftscope_probes.gates import GateOutcome, Judged, Rule, gate
from driftscope_service.terminal.commands import FOUND

#: The member of `--json`; it is there where rules were given.
GATE: Final = "gate"
_HELP: Final = (
    "Exit with 1 where it holds, e.g. 'kl_k3>1e-3', 'verdict>=bug_like' or "
    "'cause==stale_engine_weights'. Repeatable."
)


def parse_rule(text: str, *, of_two: bool = False) -> Rule:
    """Raises typer.BadParameter, which ends the command with exit code 2."""
    try:
        return gates.parse_rule(text, of_two=of_two)
    except RequestError as error:
        raise typer.BadParameter(f"{error.message} {error.remedy}") from None


def _option(parser: Callable[[str], Rule], help_: str) -> Any:
    return typer.Option("--fail-on", parser=parser, metavar="RULE", show_default=False, help=help_)


FailOn = Annotated[list[Rule] | None, _option(parse_rule, _HELP)]
FailOnOfTwo = Annotated[
    list[Rule] | None,
    _option(
        partial(parse_rule, of_two=True),
        f"{_HELP} Of either run; b.NAME is of RUN_B alone, ratio.NAME of RUN_B over RUN_A.",
    ),
]


def outcome_of(rules: Sequence[Rule] | None, judged: Iterable[Judged]) -> GateOutcome | None:
    """None where no rule was given."""
    return gate(rules, judged) if rules else None


def with_outcome(answer: dict[str, Any], outcome: GateOutcome | None) -> dict[str, Any]:
    """The object that `--json` prints, with what the rules said of it."""
    return answer if outcome is None else {**answer, GATE: outcome.to_dict()}


def exit_where_a_rule_holds(outcome: GateOutcome | None) -> None:
    """Says on stderr which rules hold, beside what stdout holds; then exits with 1."""
    if outcome is None or outcome.passed:
        return
    for held in outcome.held:
        print(f"fail-on {held.line}", file=sys.stderr)
    raise typer.Exit(FOUND)
