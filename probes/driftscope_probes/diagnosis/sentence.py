"""Sentence: the whole answer in one or two sentences, said first everywhere.

In: verdict and causes. Out: plain English.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.catalogue import catalogue
from driftscope_probes.diagnosis.cause import NAMED_FROM, ComparisonVerdict, NamedCause
from driftscope_probes.diagnosis.examination import Examination
from driftscope_probes.diagnosis.families.function import ALIKE
from driftscope_probes.diagnosis.floor import AT_FLOOR_UP_TO


def sentence_of(
    seen: Examination,
    verdict: ComparisonVerdict,
    causes: tuple[NamedCause, ...],
    reason: str | None,
    unexplained: bool,
    excess: float | None,
) -> str:
    first = causes[0] if causes and causes[0].confidence >= NAMED_FROM else None
    named = first if first and not catalogue().healthy(first.name) else None
    if verdict == "not_comparable":
        said = f"Not comparable: {reason}."
        if named:
            said = f"Not comparable: {named.title} ({named.name}, {_percent(named)})."
        return said
    if verdict == "bitwise_equal":
        return (
            f"Bitwise equal: both sides give the same bits for all {seen.signals.unmasked} tokens."
        )
    floor = seen.floor
    size = f"{excess:.2g} times" if excess is not None and excess < 100 else f"{excess:.0f} times"
    dtypes = (
        floor.rollout_dtype
        if floor.rollout_dtype == floor.trainer_dtype
        else f"{floor.rollout_dtype} against {floor.trainer_dtype}"
    )
    basis = f"the {'calibrated' if floor.source == 'calibrated' else 'prior'} floor of {dtypes}"
    if verdict == "at_floor":
        said = f"At the floor: {size} {basis}. Rounding alone explains the difference"
        return (
            f"{said}; one finding beside it: {named.title} ({named.name})." if named else f"{said}."
        )
    word = "Bug-like" if verdict == "bug_like" else "Above the floor"
    if verdict == "above_floor" and excess is not None and excess <= AT_FLOOR_UP_TO:
        word = "Small, but not of the shape that rounding has,"
    if named:
        return f"{word}: {named.title} ({named.name}, {_percent(named)}; {size} {basis})."
    if seen.rounding_shape and verdict == "above_floor":
        return (
            f"{word}: {size} {basis}, in the shape of rounding. Calibrate this model "
            "(driftscope floor) to tell a noisy model from a fault."
        )
    alike = [cause for cause in causes if cause.name in ALIKE]
    if alike and causes[0] is alike[0] and sum(cause.confidence for cause in alike) >= NAMED_FROM:
        listed = ", ".join(f"{cause.name} {_percent(cause)}" for cause in alike[:4])
        return (
            f"{word}: other weights or another function on one side ({size} {basis}); these look "
            f"alike in one step: {listed}. {alike[0].next_control}"
        )
    candidates = [cause for cause in causes if not catalogue().healthy(cause.name)][:3]
    if candidates:
        listed = ", ".join(f"{cause.name} {_percent(cause)}" for cause in candidates)
        return f"{word} and unexplained: {size} {basis}; candidates: {listed}."
    return f"{word} and unexplained: {size} {basis}; no known cause fits."


def _percent(cause: NamedCause) -> str:
    return f"{cause.confidence:.0%}".replace("%", " %")
