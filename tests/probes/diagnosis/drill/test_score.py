"""Figures of the drill against tables small enough to work out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from driftscope_probes.diagnosis.cause import Diagnosis, NamedCause
from driftscope_probes.diagnosis.drill.score import (
    Answer,
    Score,
    answered,
    calibration_error,
    false_alarm,
    score,
)
from driftscope_probes.diagnosis.floor import prior_floor

ROUNDING = "bf16_rounding_tail"
HEALTHY_CAUSES = frozenset({ROUNDING})
NOTHING = Diagnosis(
    verdict="at_floor",
    sentence="",
    excess=1.0,
    sigma=0.05,
    floor=prior_floor("bf16", "bf16"),
    causes=(),
    unexplained=False,
    stood_out=(),
    missing=(),
)
UNEXPLAINED = replace(NOTHING, verdict="above_floor", unexplained=True)


def says(*causes: tuple[str, float]) -> Diagnosis:
    named = tuple(NamedCause(name, "", confidence, (), "", "", "") for name, confidence in causes)
    return replace(NOTHING, verdict="bug_like", causes=named)


def case(
    cause: str | None,
    diagnosis: Diagnosis,
    severity: float = 0.5,
    way: str = "a",
    without: Diagnosis | None = None,
) -> Answer:
    return Answer(cause, severity, way, "tiny bf16", diagnosis, without)


def test_first_and_among_the_first_three() -> None:
    scored = score(
        [
            case("off_by_one", says(("off_by_one", 0.9), ("pad_attended", 0.1))),
            case("off_by_one", says(("x", 0.4), ("y", 0.3), ("off_by_one", 0.2))),
            case("off_by_one", says(("x", 0.4), ("y", 0.3), ("z", 0.2), ("off_by_one", 0.1))),
            case("pad_attended", NOTHING, way="b"),
        ],
        HEALTHY_CAUSES,
    )
    assert (scored.cases, scored.healthy, scored.top1, scored.top3) == (4, 0, 0.25, 0.5)
    assert scored.by_cause["off_by_one"].top1 == pytest.approx(1 / 3)
    assert scored.by_cause["off_by_one"].top3 == pytest.approx(2 / 3)
    assert scored.by_way["a"].top1 == pytest.approx(1 / 3)
    assert (scored.by_way["b"].cases, scored.by_way["b"].top1) == (1, 0.0)
    assert scored.healthy_false_alarms is None and scored.unseen_named_unexplained is None


def test_the_confusion_matrix_counts_what_a_reader_is_told() -> None:
    scored = score(
        [
            case("a", says(("a", 0.9))),
            case("a", says(("b", 0.5))),
            case("a", replace(says(("a", 0.4)), unexplained=True)),
            case("a", NOTHING),
            case(None, says((ROUNDING, 0.9))),
        ],
        HEALTHY_CAUSES,
    )
    assert scored.confusion == {
        "a": {"a": 1, "b": 1, "unexplained": 1, "at_floor": 1},
        "healthy": {ROUNDING: 1},
    }
    # Not named, yet the first of the list: it counts as right, and is no wrong answer.
    assert scored.by_cause["a"].taken_for == {"b": 1, "at_floor": 1}


def test_a_false_alarm_is_a_bug_or_a_fault_by_name() -> None:
    rounding = replace(says((ROUNDING, 0.9)), verdict="at_floor")
    fault = replace(says(("off_by_one", 0.5)), verdict="at_floor")
    candidate = replace(says(("off_by_one", 0.49)), verdict="at_floor")
    for diagnosis, alarm in (
        (NOTHING, False),
        (rounding, False),
        (UNEXPLAINED, False),
        (candidate, False),
        (fault, True),
        (replace(rounding, verdict="bug_like"), True),
    ):
        assert false_alarm(diagnosis, HEALTHY_CAUSES) is alarm
    answers = [case(None, rounding)] * 3 + [case(None, fault)]
    assert score(answers, HEALTHY_CAUSES).healthy_false_alarms == 0.25


def test_a_left_out_cause_has_to_come_out_unexplained() -> None:
    scored = score(
        [
            case("a", says(("a", 0.9)), without=UNEXPLAINED),
            case("a", says(("a", 0.9)), without=says(("b", 0.9))),
            case("a", says(("a", 0.9)), without=NOTHING),  # nothing found at all: missed as well
            case("b", says(("b", 0.9)), without=UNEXPLAINED),
            case("c", says(("c", 0.9))),
        ],
        HEALTHY_CAUSES,
    )
    assert scored.unseen_named_unexplained == 0.5
    assert scored.by_cause["a"].unseen_named_unexplained == pytest.approx(1 / 3)
    assert scored.by_cause["c"].unseen_named_unexplained is None


def test_calibration_by_hand() -> None:
    answers = [
        # 0.9 to 1: said 1.9 of 2, right 1 → gap 0.9
        case("a", says(("a", 0.95))),
        case("a", says(("b", 0.95))),
        # 0.6 to 0.7: said 0.62 + 0.68, right 1 → gap 0.3
        case("a", says(("b", 0.62))),
        case(None, says((ROUNDING, 0.68))),
        case("a", NOTHING),  # claims nothing
    ]
    assert calibration_error(answers, HEALTHY_CAUSES) == pytest.approx((0.9 + 0.3) / 4)
    assert calibration_error([case("a", NOTHING)], HEALTHY_CAUSES) is None
    assert calibration_error([case("a", says(("a", 1.0)))], HEALTHY_CAUSES) == 0.0


@pytest.mark.parametrize(
    ("right_at", "wrong_at", "seen"),
    [
        ((0.1, 0.4, 0.6, 0.9), (), 0.0),
        ((0.3, 0.6, 1.0), (0.1,), 0.25),
        ((0.1, 0.6, 1.0), (0.3,), 0.5),  # a lucky low bin does not count
        ((0.1,), (0.9,), None),
        ((0.9, 0.9, 0.9, 0.9), (0.9,), 0.75),  # four of five reach 0.8
        ((0.9, 0.9, 0.9), (0.9,), None),
    ],
)
def test_from_which_severity_on_a_cause_is_seen(
    right_at: tuple[float, ...], wrong_at: tuple[float, ...], seen: float | None
) -> None:
    answers = [case("a", says(("a", 0.9)), at) for at in right_at]
    answers += [case("a", says(("b", 0.9)), at) for at in wrong_at]
    assert score(answers, HEALTHY_CAUSES).by_cause["a"].seen_from == seen


def test_missed_bars_are_sentences() -> None:
    good = [case("a", says(("a", 0.95)), without=UNEXPLAINED)] * 19
    assert score(good, HEALTHY_CAUSES).shortfalls() == ()
    bad = score([*good, *[case("a", says(("b", 0.95)))] * 4], HEALTHY_CAUSES)
    assert bad.top1 == pytest.approx(19 / 23)
    (first, third, error) = bad.shortfalls()
    assert first == "right cause first: 82.6%, at least 92% is asked"
    assert third.startswith("right cause among the first three: 82.6%")
    assert error == "calibration error: 12.4%, at most 10% is asked"


def test_answers_none_and_round_trip() -> None:
    empty = score([], HEALTHY_CAUSES)
    assert (empty.cases, empty.top1, empty.shortfalls()) == (0, None, ())
    full = score(
        [case("a", says(("b", 0.95)), without=UNEXPLAINED), case(None, NOTHING, way="")],
        HEALTHY_CAUSES,
    )
    assert Score.read(full.to_dict()) == full
    contract = {"cases", "top1", "top3", "healthy_false_alarms", "calibration_error"}
    assert contract | {"unseen_named_unexplained", "by_cause"} <= full.to_dict().keys()


def test_what_a_reader_is_told() -> None:
    assert answered(NOTHING) == "at_floor"
    assert answered(UNEXPLAINED) == "unexplained"
    assert answered(says(("a", 0.5))) == "a"
    # Rounding is there, and does not explain all of it.
    assert answered(replace(says((ROUNDING, 0.9)), unexplained=True)) == "unexplained"
