"""`--fail-on RULE`: which results make a command exit with 1.

In: the texts of the option, and an analysis as JSON holds it. Out: the rules that hold, in words.
A rule is `NAME OP NUMBER` with a number of the comparison or `excess`, or `verdict OP WORD`.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from driftscope_probes.numbers import NUMBERS
from driftscope_probes.verdicts import COMPARISON_RANK
from driftscope_service.terminal.commands import FOUND

VERDICT, EXCESS = "verdict", "excess"
_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_RULE: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*(>=|<=|==|!=|>|<)\s*(\S+)\s*")
_ACCEPTED: Final = (
    "use NAME OP NUMBER or verdict OP WORD, for example kl_k3>1e-3, excess>3 or "
    f"verdict>=bug_like. OP: {' '.join(_OPERATORS)}. "
    f"WORD, from best to worst: {', '.join(COMPARISON_RANK)}. "
    "NAME: excess, or a number as `driftscope analyze --json` names it under comparison."
)


@dataclass(frozen=True, slots=True)
class FailRule:
    text: str
    name: str  # of a number of the comparison, `excess` or `verdict`
    operator: str  # of _OPERATORS
    bound: float  # of `verdict`: the rank of the word

    def holds(
        self, comparison: Mapping[str, Any], diagnosis: Mapping[str, Any] | None
    ) -> str | None:
        """Why it holds, or None. A value that is not there cannot be shown to be fine: it holds."""
        word, value = self._value(comparison, diagnosis)
        if value is None:
            reason = comparison.get("undefined", {}).get(self.name, "not measured")
            return f"{self.text}: {self.name} has no value ({reason})"
        if _OPERATORS[self.operator](value, self.bound):
            return f"{self.text}: {self.name} is {word}"
        return None

    def _value(
        self, comparison: Mapping[str, Any], diagnosis: Mapping[str, Any] | None
    ) -> tuple[str, float | None]:
        if self.name == VERDICT:
            verdict = None if diagnosis is None else diagnosis["verdict"]
            return str(verdict), None if verdict is None else COMPARISON_RANK[verdict]
        found = comparison if self.name != EXCESS else (diagnosis or {})
        value = found.get(self.name)
        return ("", None) if value is None else (f"{value:.6g}", float(value))


def parse_rule(text: str) -> FailRule:
    """Raises typer.BadParameter, which ends the command with exit code 2."""
    parts = _RULE.fullmatch(text)
    if parts is None:
        raise typer.BadParameter(f"{text!r} is not a rule: {_ACCEPTED}")
    name, sign, given = parts.groups()
    if name == VERDICT:
        if given not in COMPARISON_RANK:
            raise typer.BadParameter(f"{given!r} is not a verdict: {_ACCEPTED}")
        return FailRule(text.strip(), name, sign, COMPARISON_RANK[given])
    if name != EXCESS and name not in NUMBERS:
        near = difflib.get_close_matches(name, [*NUMBERS, EXCESS, VERDICT], n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise typer.BadParameter(f"{name!r} is not a number of a comparison: {hint}{_ACCEPTED}")
    return FailRule(text.strip(), name, sign, _number(text, given))


def _number(text: str, given: str) -> float:
    try:
        bound = float(given)
    except ValueError:
        bound = math.nan
    if math.isnan(bound):
        raise typer.BadParameter(f"{given!r} in {text!r} is not a number: {_ACCEPTED}")
    return bound


FailOn = Annotated[
    list[FailRule] | None,
    typer.Option(
        "--fail-on",
        parser=parse_rule,
        metavar="RULE",
        show_default=False,
        help="Exit with 1 where it holds, e.g. 'kl_k3>1e-3' or 'verdict>=bug_like'. Repeatable.",
    ),
]


@dataclass(frozen=True, slots=True)
class Judged:
    """One comparison that rules are held against."""

    comparison: Mapping[str, Any]
    diagnosis: Mapping[str, Any] | None
    where: str = ""  # which of several, "" where there is one


def exit_where_a_rule_holds(rules: Sequence[FailRule] | None, judged: Iterable[Judged]) -> None:
    """Says on stderr which rules hold, so that stdout stays what it is; then exits with 1."""
    held = [
        f"{one.where}: {why}" if one.where else why
        for one in judged
        for rule in rules or ()
        if (why := rule.holds(one.comparison, one.diagnosis)) is not None
    ]
    for line in held:
        print(f"fail-on {line}", file=sys.stderr)
    if held:
        raise typer.Exit(FOUND)
