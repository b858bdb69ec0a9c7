"""A diagnosis in words, the same in the terminal, on pages and in reports.

In: the diagnosis of a stored or answered analysis, as JSON holds it. Out: Diagnosis, and its parts
as text. None stands for an analysis without one, as older versions stored it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter

from driftscope_probes.diagnosis.cause import Diagnosis, Evidence, NamedCause
from driftscope_probes.diagnosis.floor import Floor
from driftscope_service.numbers.metric_words import number

#: Candidates that are listed beside the answer; more would be a catalogue, not a hint.
MOST_OTHERS: Final = 5
#: What the field `cause` of a series says where nothing reaches the confidence of an answer.
UNEXPLAINED: Final = "unexplained"

_VERDICTS: Final[Mapping[str, str]] = {
    "bitwise_equal": "bitwise equal",
    "at_floor": "at the floor",
    "above_floor": "above the floor",
    "bug_like": "bug-like",
    "not_comparable": "not comparable",
}


@cache
def _reader() -> TypeAdapter[Diagnosis]:
    return TypeAdapter(Diagnosis)


def read_diagnosis(stored: Mapping[str, Any] | None) -> Diagnosis | None:
    """`stored`: Diagnosis.to_dict(), possibly through JSON."""
    return None if stored is None else _reader().validate_python(stored)


def verdict_words(verdict: str) -> str:
    """`bug_like` as people read it: bug-like."""
    return _VERDICTS[verdict]


def excess_words(diagnosis: Diagnosis) -> str:
    """How far from which floor, in one clause without a full stop."""
    if diagnosis.excess is None:
        return "nothing that could be held against a floor"
    return f"{times(diagnosis.excess)} {floor_words(diagnosis.floor)}"


def times(excess: float) -> str:
    return f"{number(excess)} times" if excess < 1e6 else "more than a million times"


def floor_words(floor: Floor) -> str:
    """Which floor, for which dtypes, and what of it nobody stated."""
    pair = f"{floor.rollout_dtype} × {floor.trainer_dtype}"  # rollout × trainer, as in the grid
    kind = "the calibrated floor" if floor.source == "calibrated" else "the prior floor"
    assumed = [side.removesuffix("_dtype") for side in floor.assumed]
    guessed = f"; {' and '.join(assumed)} dtype assumed" if assumed else ""
    return f"{kind} ({pair}, σ {number(floor.sigma)} nats{guessed})"


def confidence(cause: NamedCause) -> str:
    """As a probability with two digits: the drill calibrates no finer."""
    return f"{cause.confidence:.2f}"


def evidence_value(item: Evidence) -> str:
    return item.value if isinstance(item.value, str) else number(item.value)


def others(diagnosis: Diagnosis) -> tuple[NamedCause, ...]:
    """The candidates beside the answer, or all where there is none."""
    return diagnosis.causes[0 if diagnosis.cause is None else 1 :][:MOST_OTHERS]


def named(causes: Sequence[NamedCause]) -> str:
    return ", ".join(f"{cause.name} {confidence(cause)}" for cause in causes)


def cause_name(diagnosis: Diagnosis) -> str | None:
    """One word for lists and lines: the answer, `unexplained`, or None where there is nothing to
    explain."""
    if diagnosis.cause is not None:
        return diagnosis.cause.name
    return UNEXPLAINED if diagnosis.unexplained else None
