"""How good the diagnosis is: what it answered to cases whose cause is known.

In: answers, each with the cause that was injected. Out: Score, with the bars it has to pass.
Free of torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from driftscope_probes.diagnosis.cause import Diagnosis
from driftscope_probes.diagnosis.families.registry import CAUSES

Key = TypeVar("Key", str, int)
ALIKE_OF: Mapping[str, tuple[str, ...]] = {cause.name: cause.alike for cause in CAUSES}

HEALTHY = "healthy"  # row of the confusion matrix: nothing was injected
UNEXPLAINED = "unexplained"  # column: not at the floor, and no cause sure enough

#: What a drill has to reach. Below these a person who is woken by an answer learns to ignore it:
#: one wrong name in twelve, one false alarm in a hundred healthy steps.
TOP1_AT_LEAST = 0.92
TOP3_AT_LEAST = 0.97
FALSE_ALARMS_AT_MOST = 0.01
UNSEEN_AT_LEAST = 0.80  # a fault that nobody described must not get another fault's name
CALIBRATION_ERROR_AT_MOST = 0.10  # said 80 %, right between 70 % and 90 %

#: Bins of the expected calibration error (Naeini et al. 2015 use 10).
CONFIDENCE_BINS = 10
#: Verdicts that leave nothing to explain.
HIDDEN = frozenset({"bitwise_equal", "at_floor"})
#: Severity 0 to 1 in quarters: with about 15 cases per cause a finer bin holds two or three.
SEVERITY_BINS = 4
#: A cause is seen from the bin on in which, and above which, this part is named first.
SEEN_AT = 0.8


@dataclass(frozen=True, slots=True)
class Answer:
    """One case and what was said of it."""

    cause: str | None  # that was injected; None: healthy
    severity: float  # 0 to 1
    way: str  # of injection: "a", "b", or "" for healthy
    setting: str  # model, dtypes, size: what the answer may depend on
    diagnosis: Diagnosis
    without: Diagnosis | None = None  # with the detector of this very cause removed

    def named_alike(self) -> bool:
        """Named first, or a cause that one step's data cannot tell from it is."""
        if not self.diagnosis.causes or self.cause is None:
            return False
        first = self.diagnosis.causes[0].name
        return first == self.cause or first in ALIKE_OF.get(self.cause, ())

    def named_within(self, first: int) -> bool:
        return self.cause in [cause.name for cause in self.diagnosis.causes[:first]]


@dataclass(frozen=True, slots=True)
class CauseScore:
    """Fractions 0 to 1; None where there is nothing to divide by."""

    cases: int
    top1: float
    top3: float
    seen_from: float | None  # lowest severity from which on it is named first; None: never
    unseen_named_unexplained: float | None  # with its detector removed
    taken_for: Mapping[str, int]  # wrong answers, most frequent first

    def to_dict(self) -> dict[str, Any]:
        return {
            "cases": self.cases,
            "top1": self.top1,
            "top3": self.top3,
            "seen_from": self.seen_from,
            "unseen_named_unexplained": self.unseen_named_unexplained,
            "taken_for": dict(self.taken_for),
        }


@dataclass(frozen=True, slots=True)
class Group:
    """Faulty cases that share a way of injection, a model or a size."""

    cases: int
    top1: float

    def to_dict(self) -> dict[str, Any]:
        return {"cases": self.cases, "top1": self.top1}


@dataclass(frozen=True, slots=True)
class Score:
    """Fractions 0 to 1; None where no case of that kind was run."""

    cases: int  # with a fault
    healthy: int
    top1: float | None
    #: The same where a cause that looks alike in one step counts as well: the group is listed with
    #: shared probability and the control that splits it.
    top1_alike: float | None
    top3: float | None
    healthy_false_alarms: float | None
    unseen_named_unexplained: float | None
    calibration_error: float | None
    by_cause: Mapping[str, CauseScore]
    by_way: Mapping[str, Group]
    by_setting: Mapping[str, Group]
    confusion: Mapping[str, Mapping[str, int]]  # injected → answered → cases

    def shortfalls(self) -> tuple[str, ...]:
        """The bars that were missed, a sentence each; a figure without cases misses none."""
        at_least = (
            ("right cause first", self.top1, TOP1_AT_LEAST),
            ("right cause among the first three", self.top3, TOP3_AT_LEAST),
            ("left-out causes unexplained", self.unseen_named_unexplained, UNSEEN_AT_LEAST),
        )
        at_most = (
            ("healthy pairs called a fault", self.healthy_false_alarms, FALSE_ALARMS_AT_MOST),
            ("calibration error", self.calibration_error, CALIBRATION_ERROR_AT_MOST),
        )
        return (
            *(
                f"{what}: {value:.1%}, at least {bar:.0%} is asked"
                for what, value, bar in at_least
                if value is not None and value < bar
            ),
            *(
                f"{what}: {value:.1%}, at most {bar:.0%} is asked"
                for what, value, bar in at_most
                if value is not None and value > bar
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "cases": self.cases,
            "healthy": self.healthy,
            "top1": self.top1,
            "top1_alike": self.top1_alike,
            "top3": self.top3,
            "healthy_false_alarms": self.healthy_false_alarms,
            "unseen_named_unexplained": self.unseen_named_unexplained,
            "calibration_error": self.calibration_error,
            "by_cause": {name: value.to_dict() for name, value in self.by_cause.items()},
            "by_way": {name: value.to_dict() for name, value in self.by_way.items()},
            "by_setting": {name: value.to_dict() for name, value in self.by_setting.items()},
            "confusion": {name: dict(row) for name, row in self.confusion.items()},
            "shortfalls": list(self.shortfalls()),
        }

    @staticmethod
    def read(given: Mapping[str, Any]) -> Score:
        """What `to_dict` made."""
        groups = {
            kind: {name: Group(**row) for name, row in given[kind].items()}
            for kind in ("by_way", "by_setting")
        }
        causes = {name: CauseScore(**row) for name, row in given["by_cause"].items()}
        own = {item.name: given[item.name] for item in fields(Score)}
        return Score(**{**own, **groups, "by_cause": causes})


def answered(diagnosis: Diagnosis) -> str:
    """The column of the confusion matrix: `unexplained`, a cause sure enough, or the verdict."""
    # First: rounding may be seen as well where something else is left unexplained.
    if diagnosis.unexplained:
        return UNEXPLAINED
    return diagnosis.verdict if diagnosis.cause is None else diagnosis.cause.name


def false_alarm(diagnosis: Diagnosis, healthy_causes: frozenset[str]) -> bool:
    """Of a healthy pair: called a bug, or given a cause that is a fault."""
    named = diagnosis.cause
    return diagnosis.verdict == "bug_like" or (
        named is not None and named.name not in healthy_causes
    )


def score(answers: Sequence[Answer], healthy_causes: frozenset[str]) -> Score:
    """`healthy_causes`: names of causes that are no fault, such as rounding."""
    faulty = [answer for answer in answers if answer.cause is not None]
    healthy = [answer for answer in answers if answer.cause is None]
    return Score(
        cases=len(faulty),
        healthy=len(healthy),
        top1=_fraction(answer.named_within(1) for answer in faulty),
        top1_alike=_fraction(answer.named_alike() for answer in faulty),
        top3=_fraction(answer.named_within(3) for answer in faulty),
        healthy_false_alarms=_fraction(
            false_alarm(answer.diagnosis, healthy_causes) for answer in healthy
        ),
        unseen_named_unexplained=_unseen(faulty),
        calibration_error=calibration_error(answers, healthy_causes),
        by_cause={
            name: _cause_score(own)
            for name, own in _grouped(faulty, lambda answer: str(answer.cause)).items()
        },
        by_way=_groups(faulty, lambda answer: answer.way),
        by_setting=_groups(faulty, lambda answer: answer.setting),
        confusion={
            name: dict(Counter(answered(answer.diagnosis) for answer in own).most_common())
            for name, own in _grouped(answers, lambda answer: answer.cause or HEALTHY).items()
        },
    )


def calibration_error(answers: Iterable[Answer], healthy_causes: frozenset[str]) -> float | None:
    """Mean over cases of |confidence - part that was right| within ten bins of confidence.

    Of the first cause; answers without any cause claim nothing and are left out.
    """
    claims = [
        (answer.diagnosis.causes[0].confidence, _right(answer, healthy_causes))
        for answer in answers
        if answer.diagnosis.causes
    ]
    if not claims:
        return None
    bins: dict[int, list[tuple[float, bool]]] = {}
    for confidence, right in claims:
        bins.setdefault(_bin(confidence, CONFIDENCE_BINS), []).append((confidence, right))
    gaps = (
        abs(sum(confidence for confidence, _ in held) - sum(right for _, right in held))
        for held in bins.values()
    )
    return sum(gaps) / len(claims)


def _right(answer: Answer, healthy_causes: frozenset[str]) -> bool:
    first = answer.diagnosis.causes[0].name
    return first in healthy_causes if answer.cause is None else first == answer.cause


def _cause_score(answers: Sequence[Answer]) -> CauseScore:
    wrong = Counter(answered(answer.diagnosis) for answer in answers if not answer.named_within(1))
    return CauseScore(
        cases=len(answers),
        top1=_mean([answer.named_within(1) for answer in answers]),
        top3=_mean([answer.named_within(3) for answer in answers]),
        seen_from=_seen_from(answers),
        unseen_named_unexplained=_unseen(answers),
        taken_for=dict(wrong.most_common()),
    )


def _seen_from(answers: Sequence[Answer]) -> float | None:
    """Lower edge of the lowest bin that holds cases and, like all above it, reaches SEEN_AT."""
    bins = _grouped(answers, lambda answer: _bin(answer.severity, SEVERITY_BINS))
    seen = None
    for index in sorted(bins, reverse=True):
        if _mean([answer.named_within(1) for answer in bins[index]]) < SEEN_AT:
            break
        seen = index / SEVERITY_BINS
    return seen


def _unseen(answers: Iterable[Answer]) -> float | None:
    """Of the cases that show at all: what rounding hides leaves nothing to explain."""
    return _fraction(
        answer.without.unexplained
        for answer in answers
        if answer.without is not None and answer.diagnosis.verdict not in HIDDEN
    )


def _groups(answers: Iterable[Answer], key: Callable[[Answer], str]) -> dict[str, Group]:
    return {
        name: Group(len(own), _mean([answer.named_within(1) for answer in own]))
        for name, own in _grouped(answers, key).items()
    }


def _grouped(answers: Iterable[Answer], key: Callable[[Answer], Key]) -> dict[Key, list[Answer]]:
    found: dict[Key, list[Answer]] = {}
    for answer in answers:
        found.setdefault(key(answer), []).append(answer)
    return {name: found[name] for name in sorted(found)}


def _bin(value: float, bins: int) -> int:
    """1 belongs to the last bin."""
    return min(int(value * bins), bins - 1)


def _fraction(held: Iterable[bool]) -> float | None:
    values = list(held)
    return _mean(values) if values else None


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values)
