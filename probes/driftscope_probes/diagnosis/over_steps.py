"""Over steps: what the steps of a run say together that none of them says alone.

In: one RunPoint per step. Out: causes, most likely first. A sync that does not happen grows from a
clean first step; a reload that goes wrong is a jump that stays; a resume is one that heals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.catalogue import catalogue
from driftscope_probes.diagnosis.cause import Evidence, NamedCause, Plot
from driftscope_probes.diagnosis.examination import ramp
from driftscope_probes.diagnosis.floor import AT_FLOOR_UP_TO

Floats = NDArray[np.float64]

#: Fewer steps have no course.
FEW_STEPS = 4
#: A clean step is within this many floors; a jump is a factor of three, e^1.1.
CLEAN_EXCESS, JUMP = 2.5, 1.1
#: slime #1695: high for a few steps after a restart.
LONGEST_HEALING = 12
#: Beyond this many floors the engine answers with something else: buffers gone, not a tensor old.
GARBAGE_EXCESS = 60.0
SHOWN_FROM = 0.1


@dataclass(frozen=True, slots=True)
class RunPoint:
    """What of a step is kept for the run's diagnosis."""

    step: int
    excess: float | None  # measured sigma over the floor's
    entropy: float | None = None  # nats, mean over tokens, of the trainer
    resumed: bool = False  # the first step after a restart from a checkpoint
    cause: str | None = None  # named by the step's own diagnosis
    weights_match: bool | None = None  # by the digests of both sides; None: not pushed


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """Steps with a measured excess, in their order."""

    steps: NDArray[np.int64]
    size: Floats  # log excess
    entropy: Floats  # nats, NaN where unknown
    resumed: NDArray[np.bool_]
    told: NDArray[np.bool_]  # the step's own diagnosis names what is no matter of weights

    @property
    def untold(self) -> float:
        """1 where the latest steps do not say themselves what it is."""
        return 1.0 - 0.7 * float(self.told[-5:].mean())

    @property
    def first(self) -> float:
        """log excess at the beginning: of three steps, so that one odd one does not count."""
        return float(np.median(self.size[:3]))

    @property
    def jump(self) -> tuple[int, float] | None:
        """Index after the largest rise of the level, and the rise in logs; None below JUMP.

        The level is the median of up to four steps on either side.
        """
        best: tuple[int, float] | None = None
        for at in range(1, self.size.size):
            before = float(np.median(self.size[max(0, at - 4) : at]))
            after = float(np.median(self.size[at : at + 4]))
            sharp = float(self.size[at] - self.size[at - 1])
            rise = min(after - before, sharp + 0.1)
            if rise >= JUMP and (best is None or rise > best[1]):
                best = (at, rise)
        return best


def diagnose_run(points: Sequence[RunPoint]) -> tuple[NamedCause, ...]:
    """Needs FEW_STEPS steps; the answer is empty where nothing has a course."""
    known = [point for point in points if point.excess is not None and point.excess > 0]
    if len(known) < FEW_STEPS:
        return ()
    course = Course(
        np.array([point.step for point in known]),
        np.log(np.array([float(point.excess or 1.0) for point in known])),
        np.array([np.nan if point.entropy is None else point.entropy for point in known]),
        np.array([point.resumed for point in known]),
        np.array([point.cause is not None and _tells(point.cause) for point in known]),
    )
    found = [
        _named(name, confidence, evidence, course)
        for name, look in LOOKS.items()
        if not (known[-1].weights_match and name in OF_DIFFERENT_WEIGHTS)
        for confidence, evidence in [look(course)]
        if confidence >= SHOWN_FROM
    ]
    return tuple(sorted(found, key=lambda cause: -cause.confidence))


def _tells(cause: str) -> bool:
    """A fault of data, meaning or context: it explains a course, and no course explains it.

    A recorded lag may grow because nothing is synced any more: the course says that.
    """
    known = catalogue().by_name.get(cause)
    if known is None or cause == "policy_staleness":
        return False
    return known.level not in ("weights", "arithmetic")


Answer = tuple[float, tuple[Evidence, ...]]
NOTHING: Answer = (0.0, ())


def _resume(course: Course) -> Answer:
    """High right after a restart, and healed a few steps later."""
    jump = course.jump
    if jump is None:
        return NOTHING
    at, rise = jump
    later = course.size[at:]
    level = float(np.median(course.size[:at]))
    healed = np.flatnonzero(later < level + 0.5 * rise)
    if not healed.size or healed[0] > LONGEST_HEALING:
        return NOTHING
    stays = later[healed[0] :]
    well = float((stays < level + 0.5 * rise).mean())
    told = bool(course.resumed[max(0, at - 1) : at + 2].any())
    confidence = (0.95 if told else 0.75) * ramp(well, 0.5, 0.8) * ramp(rise, JUMP, 1.5 * JUMP)
    return confidence, (
        Evidence("step at which it rises", int(course.steps[at]), "none"),
        Evidence("times as large there", round(float(np.exp(rise)), 1), "1"),
        Evidence("steps until it is healed", int(healed[0]), "it would stay after a reload"),
        Evidence("a restart was recorded there", "yes" if told else "not recorded", "no"),
    )


def _stays(course: Course) -> tuple[int, float, float] | None:
    """A jump that does not heal: its index, rise, and the excess after it."""
    jump = course.jump
    if jump is None:
        return None
    at, rise = jump
    level = float(np.median(course.size[:at]))
    if float((course.size[at:] > level + 0.5 * rise).mean()) < 0.7:
        return None
    return at, rise, float(np.exp(np.median(course.size[at:])))


def _reload(course: Course) -> Answer:
    stays = _stays(course)
    if stays is None:
        return NOTHING
    at, rise, after = stays
    before = float(np.exp(np.median(course.size[:at])))
    confidence = (
        0.8
        * ramp(before, 2 * CLEAN_EXCESS, CLEAN_EXCESS)
        * ramp(rise, JUMP, 1.5 * JUMP)
        * ramp(after, 2 * GARBAGE_EXCESS, GARBAGE_EXCESS)
        * course.untold
        * _not_with_entropy(course)
    )
    return confidence, _jump_evidence(course, at, rise, after)


def _sleep(course: Course) -> Answer:
    stays = _stays(course)
    if stays is None:
        return NOTHING
    at, rise, after = stays
    before = float(np.exp(np.median(course.size[:at])))
    confidence = (
        0.8
        * ramp(before, 2 * CLEAN_EXCESS, CLEAN_EXCESS)
        * ramp(after, 0.5 * GARBAGE_EXCESS, GARBAGE_EXCESS)
        * course.untold
        * _not_with_entropy(course)
    )
    return confidence, _jump_evidence(course, at, rise, after)


def _jump_evidence(course: Course, at: int, rise: float, after: float) -> tuple[Evidence, ...]:
    return (
        Evidence("step at which it rises and stays", int(course.steps[at]), "none"),
        Evidence("times as large from there", round(float(np.exp(rise)), 1), "1"),
        Evidence("excess over the floor from there", round(after, 1), "up to 2"),
    )


def _growth(course: Course) -> tuple[float, float, float]:
    """Rank correlation of the size with the step, excess at the beginning and at the end."""
    ranks = np.argsort(np.argsort(course.size, kind="stable"), kind="stable")
    related = float(np.corrcoef(np.arange(ranks.size), ranks)[0, 1]) if ranks.size > 2 else 0.0
    last = float(np.exp(np.median(course.size[-3:])))
    return related, float(np.exp(min(course.first, float(course.size[0])))), last


def _never_synced(course: Course) -> Answer:
    """Clean at the first step, then further off with every step."""
    related, first, last = _growth(course)
    confidence = (
        0.85
        * ramp(related, 0.6, 0.85)
        * ramp(first, 2 * CLEAN_EXCESS, CLEAN_EXCESS)
        * ramp(last / first, 2.0, 4.0)
        * _not_with_entropy(course)
        * course.untold
        * (0.4 if _stays(course) is not None else 1.0)
    )
    return confidence, _growth_evidence(course, related, first, last)


def _sharpening(course: Course) -> Answer:
    """Grows as the entropy falls."""
    related, first, last = _growth(course)
    with_entropy = _with_entropy(course)
    fall = float(course.entropy[0] - course.entropy[-1]) if course.entropy.size else 0.0
    confidence = (
        0.8
        * ramp(-with_entropy, 0.6, 0.9)
        * ramp(last / first, 1.3, 2.5)
        * ramp(last, AT_FLOOR_UP_TO, 1.5 * AT_FLOOR_UP_TO)
        * ramp(fall / max(float(course.entropy[0]), 1e-9), 0.1, 0.3)
        if np.isfinite(with_entropy) and with_entropy != 0.0
        else 0.0
    )
    return confidence, (
        *_growth_evidence(course, related, first, last),
        Evidence("correlation of its log with the entropy", round(with_entropy, 2), "about 0"),
    )


def _with_entropy(course: Course) -> float:
    """Correlation of the log size with the trainer's entropy; 0 where that is not known."""
    if not np.isfinite(course.entropy).all() or np.ptp(course.entropy) == 0:
        return 0.0
    if np.ptp(course.size) == 0:
        return 0.0
    return float(np.corrcoef(course.entropy, course.size)[0, 1])


def _not_with_entropy(course: Course) -> float:
    """Weights do not follow the entropy of the policy."""
    return 1.0 - 0.7 * ramp(-_with_entropy(course), 0.6, 0.9)


def _growth_evidence(
    course: Course, related: float, first: float, last: float
) -> tuple[Evidence, ...]:
    return (
        Evidence("rank correlation of the excess with the step", round(related, 2), "about 0"),
        Evidence(f"excess at step {int(course.steps[0])}", round(first, 2), "up to 2"),
        Evidence(f"excess at step {int(course.steps[-1])}", round(last, 2), "as at the first"),
    )


#: Causes that a course can tell.
LOOKS: dict[str, Callable[[Course], Answer]] = {
    "resume_mismatch": _resume,
    "sleep_wake_corruption": _sleep,
    "dropped_tensor_on_reload": _reload,
    "stale_engine_weights": _never_synced,
    "entropy_sharpening": _sharpening,
}


#: Faults that stay: not one where the weights of the last step are proven to be the same.
OF_DIFFERENT_WEIGHTS = frozenset(
    {"sleep_wake_corruption", "dropped_tensor_on_reload", "stale_engine_weights"}
)


def _named(
    name: str, confidence: float, evidence: tuple[Evidence, ...], course: Course
) -> NamedCause:
    cause = catalogue().by_name[name]
    return NamedCause(
        name,
        cause.title,
        confidence,
        evidence,
        cause.remedy,
        cause.next_control,
        cause.doc,
        Plot(
            "line",
            "excess over the floor by step",
            "step",
            "measured noise over the floor",
            tuple(float(step) for step in course.steps),
            tuple(round(float(np.exp(size)), 4) for size in course.size),
        ),
    )
