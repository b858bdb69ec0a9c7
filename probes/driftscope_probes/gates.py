"""Gates: rules on a comparison that make a command, a CI job or a test fail.

In: texts such as `kl_k3>1e-3`, `verdict>=bug_like` or `cause==stale_engine_weights`, and analyses
as JSON holds them. Out: which rules hold, in words and as JSON. Free of torch.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from driftscope_probes.diagnosis.catalogue import catalogue
from driftscope_probes.diagnosis.cause import NAMED_FROM
from driftscope_probes.errors import RequestError
from driftscope_probes.numbers import NUMBERS
from driftscope_probes.verdicts import COMPARISON_RANK

VERDICT, EXCESS, CAUSE = "verdict", "excess", "cause"
#: Where nothing reaches the confidence of an answer.
UNEXPLAINED: Final = "unexplained"
#: Of two that are compared: the first, the second, and the second to the first.
Side = Literal["a", "b", "ratio"]
SIDES: Final[tuple[Side, ...]] = ("a", "b", "ratio")
RATIO: Final = "ratio"
_EQUAL: Final = "=="
_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    _EQUAL: operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_RULE: Final = re.compile(
    r"\s*(?:([A-Za-z]+)\.)?([A-Za-z][A-Za-z0-9_]*)\s*(>=|<=|==|!=|>|<|=)\s*([^\s<>=!]\S*)\s*"
)
_ACCEPTED: Final = (
    "use NAME OP NUMBER or verdict OP WORD, for example kl_k3>1e-3, excess>3, verdict>=bug_like or "
    f"cause==stale_engine_weights. OP: {' '.join(_OPERATORS)}. "
    f"WORD, from best to worst: {', '.join(COMPARISON_RANK)}. "
    "NAME: excess, or a number as `driftscope analyze --json` names it under comparison. "
    "A cause, with == or !=: the name of its page in docs/causes."
)
_OF_SIDES: Final = (
    "a.NAME and b.NAME are of one of the two alone, ratio.NAME is the distance of the second from "
    "agreement over that of the first; they belong to `driftscope compare`."
)


@dataclass(frozen=True, slots=True)
class Judged:
    """One comparison that rules are held against."""

    comparison: Mapping[str, Any]
    diagnosis: Mapping[str, Any] | None
    where: str = ""  # which of several, "" where there is one
    side: Side | None = None  # of two that are compared

    @property
    def cause(self) -> str | None:
        """The named cause, `unexplained`, or None where there is nothing to explain."""
        if self.diagnosis is None:
            return None
        first = next(iter(self.diagnosis["causes"]), None)
        if first is not None and first["confidence"] >= NAMED_FROM:
            return str(first["name"])
        return UNEXPLAINED if self.diagnosis["unexplained"] else None


@dataclass(frozen=True, slots=True)
class HeldRule:
    """A rule that holds: what the gate closes for."""

    rule: str
    where: str
    name: str
    value: float | str | None  # None: there is none, which cannot be shown to be fine
    why: str

    @property
    def line(self) -> str:
        return f"{self.where}: {self.why}" if self.where else self.why

    def to_dict(self) -> dict[str, Any]:
        return {
            **{"rule": self.rule, "where": self.where, "name": self.name},
            **{"value": self.value, "why": self.why},
        }


@dataclass(frozen=True, slots=True)
class Rule:
    text: str
    name: str  # of a number of the comparison, `excess`, `verdict` or `cause`
    operator: str  # of _OPERATORS
    bound: float | str  # of `verdict`: the rank of the word; of `cause`: its name
    side: Side | None = None  # None: of both, where two are compared

    def is_of(self, judged: Judged) -> bool:
        """A ratio is held against by who names it alone."""
        return self.side == judged.side or (self.side is None and judged.side != RATIO)

    def holds(self, judged: Judged) -> HeldRule | None:
        """What has no value cannot be shown to be fine: then it holds."""
        if self.name == CAUSE:
            return self._cause_holds(judged)
        assert not isinstance(self.bound, str)
        word, value = self._value(judged)
        if value is None:
            reason = judged.comparison.get("undefined", {}).get(self.name, "not measured")
            return self._held(judged, None, f"{self.name} has no value ({reason})")
        if not _OPERATORS[self.operator](value, self.bound):
            return None
        shown = word if self.name == VERDICT else value if math.isfinite(value) else str(value)
        return self._held(judged, shown, f"{self.name} is {word}")

    def _cause_holds(self, judged: Judged) -> HeldRule | None:
        if judged.diagnosis is None:
            return self._held(judged, None, "cause has no value (not measured)")
        cause = judged.cause
        # Nothing to explain is neither this cause nor another one.
        if cause is None or (cause == self.bound) is not (self.operator == _EQUAL):
            return None
        return self._held(judged, cause, f"cause is {cause}")

    def _held(self, judged: Judged, value: float | str | None, why: str) -> HeldRule:
        return HeldRule(self.text, judged.where, self.name, value, f"{self.text}: {why}")

    def _value(self, judged: Judged) -> tuple[str, float | None]:
        if self.name == VERDICT:
            verdict = None if judged.diagnosis is None else judged.diagnosis["verdict"]
            return str(verdict), None if verdict is None else COMPARISON_RANK[verdict]
        found = judged.comparison if self.name != EXCESS else (judged.diagnosis or {})
        value = found.get(self.name)
        return ("", None) if value is None else (f"{value:.6g}", float(value))


@dataclass(frozen=True, slots=True)
class GateOutcome:
    """Rules, and those of them that hold."""

    rules: tuple[Rule, ...]
    held: tuple[HeldRule, ...]

    @property
    def passed(self) -> bool:
        return not self.held

    def to_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "rules": [rule.text for rule in self.rules],
            "held": [one.to_dict() for one in self.held],
        }


def gate(rules: Sequence[Rule], judged: Iterable[Judged]) -> GateOutcome:
    held = [
        found
        for one in judged
        for rule in rules
        if rule.is_of(one) and (found := rule.holds(one)) is not None
    ]
    return GateOutcome(tuple(rules), tuple(held))


def parse_rule(text: str, *, of_two: bool = False) -> Rule:
    """Raises RequestError. `of_two`: two are compared, so that a rule may name one of them."""
    parts = _RULE.fullmatch(text)
    if parts is None:
        raise RequestError(f"{text!r} is not a rule:", remedy=_ACCEPTED)
    side, name, sign, given = parts.groups()
    bound = _bound(text, name, sign, given)
    whole = text.strip()
    sign = _EQUAL if sign == "=" else sign
    return Rule(whole, name, sign, bound, _side(side, name, of_two))


def _bound(text: str, name: str, sign: str, given: str) -> float | str:
    if name == VERDICT:
        if given not in COMPARISON_RANK:
            raise RequestError(f"{given!r} is not a verdict:", remedy=_ACCEPTED)
        return COMPARISON_RANK[given]
    if name == CAUSE:
        return _known_cause(text, sign, given)
    if name != EXCESS and name not in NUMBERS:
        hint = _near(name, [*NUMBERS, EXCESS, VERDICT, CAUSE])
        raise RequestError(f"{name!r} is not a number of a comparison:", remedy=hint + _ACCEPTED)
    return _number(text, given)


def _known_cause(text: str, sign: str, given: str) -> str:
    if sign not in ("=", _EQUAL, "!="):
        raise RequestError(f"{text!r}: causes have no order:", remedy=_ACCEPTED)
    known = [*catalogue().by_name, UNEXPLAINED]
    if given not in known:
        hint = _near(given, known)
        raise RequestError(f"{given!r} is not a cause:", remedy=hint + _ACCEPTED)
    return given


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(near)}? " if near else ""


def _side(given: str | None, name: str, of_two: bool) -> Side | None:
    if given is None:
        return None
    side = next((one for one in SIDES if one == given), None)
    if side is None or not of_two:
        raise RequestError(f"{given}.{name} names a side:", remedy=f"{_OF_SIDES} {_ACCEPTED}")
    if side == RATIO and name in (VERDICT, CAUSE, EXCESS):
        raise RequestError(
            f"there is no ratio of {name}:", remedy=f"use b.{name}, or a number. {_ACCEPTED}"
        )
    return side


def _number(text: str, given: str) -> float:
    try:
        bound = float(given)
    except ValueError:
        bound = math.nan
    if math.isnan(bound):
        raise RequestError(f"{given!r} in {text!r} is not a number:", remedy=_ACCEPTED)
    return bound
