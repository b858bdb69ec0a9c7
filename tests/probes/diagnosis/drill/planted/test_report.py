"""What a drill on controls counts, and what it calls a shortfall."""

from __future__ import annotations

from typing import Any

from driftscope_probes.diagnosis.drill.planted.report import (
    HEALTHY,
    CaseRun,
    ControlRun,
    ControlsReport,
    matrix,
)


def ran(control: str, outcome: str) -> ControlRun:
    return ControlRun(
        control=control,
        outcome=outcome,
        what="sigma",
        value=0.1,
        expected="up to 0.14",
        seconds=2.0,
        asked_by="planner",
    )


def case(cause: str, *runs: ControlRun, answer: str | None = None, **fields: Any) -> CaseRun:
    plain = {
        "cause": cause,
        "what": "a fault",
        "alike": "caches",
        "model": "tiny",
        "dtypes": "bf16/bf16",
        "seed": 0,
        "data_verdict": "above_floor",
        "data_causes": [],
        "sigma": 0.3,
        "floor": 0.07,
        "answer": answer,
        "confidence": None if answer is None else 0.96,
        "ended": "sure",
        "runs": list(runs),
        "own": [],
        "planner_controls": len(runs),
        "fixed_controls": 9,
        "seconds": 20.0,
    }
    return CaseRun(**{**plain, **fields})


STALE = case(
    "stale_prefix_cache",
    ran("prefix_cache_off", "clean"),
    ran("engine_batch_of_one", "clean"),
    answer="stale_prefix_cache",
    own=["prefix_cache_off"],
)
SOUND = case(HEALTHY, ran("prefix_cache_off", "dirty"), ran("engine_batch_of_one", "clean"))


def report(*cases: CaseRun) -> ControlsReport:
    return ControlsReport(cases=list(cases), request={}, environment={}, seconds=1.0)


def test_a_control_is_counted_against_its_faults_and_healthy_pairs() -> None:
    rows = {row.control: row for row in matrix([STALE, SOUND])}
    own = rows["prefix_cache_off"]
    assert (own.caught, own.planted, own.false, own.healthy) == (1, 1, 0, 1)
    assert (rows["engine_batch_of_one"].spoke, rows["engine_batch_of_one"].others) == (0, 1)
    assert report(STALE, SOUND).shortfalls() == []
    assert report(STALE, SOUND).fewer == (2, 9, 1)


def test_what_was_missed_is_said() -> None:
    missed = STALE.model_copy(
        update={"runs": [ran("prefix_cache_off", "dirty")], "answer": "unexplained"}
    )
    false = case(HEALTHY, ran("engine_batch_of_one", "dirty"))
    said = report(missed, false).shortfalls()
    assert [text.split(":")[0].split(" ")[0] for text in said] == [
        "right",
        "engine_batch_of_one",
        "prefix_cache_off",
    ]


def test_what_did_not_happen_counts_for_nothing() -> None:
    idle = case("norm_eps", ran("eager", "it did not happen here"), answer="norm_eps")
    assert all(row.others == row.planted == 0 for row in matrix([idle]))


def test_a_case_that_was_run_again_replaces_the_one_before() -> None:
    again = STALE.model_copy(update={"answer": "unexplained"})
    joined = report(STALE, SOUND).joined(report(again))
    assert [one.answer for one in joined.planted] == ["unexplained"]
    assert len(joined.healthy) == 1
    assert ControlsReport.read(joined.to_dict()) == joined
