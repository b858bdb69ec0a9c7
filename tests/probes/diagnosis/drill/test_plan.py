"""What a drill injects where: everything that can be injected, evenly, in few pairs."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from driftscope_probes.diagnosis.drill.courses import COURSES
from driftscope_probes.diagnosis.drill.plan import (
    MILDEST,
    PlannedCase,
    plainly,
    plan,
    plan_runs,
)
from driftscope_probes.diagnosis.drill.policies import POLICIES
from driftscope_probes.diagnosis.drill.registry import INJECTIONS
from driftscope_probes.diagnosis.drill.request import DrillRequest
from driftscope_probes.errors import RequestError
from driftscope_probes.push.pushed_step import pushed_step

CAUSES = sorted({str(item.cause) for item in INJECTIONS if item.cause})


def faulty(cases: tuple[PlannedCase, ...]) -> list[PlannedCase]:
    return [case for case in cases if case.planned.injection.cause]


def test_the_full_drill_covers_what_is_asked_of_it() -> None:
    cases = plan(DrillRequest(cases=600))
    faults = faulty(cases)
    assert (len(faults), len(cases)) == (600, 900)
    counts = Counter(case.planned.injection.cause for case in faults)
    assert sorted(map(str, counts)) == CAUSES
    assert max(counts.values()) - min(counts.values()) <= 1
    settings = {case.planned.setting for case in cases}
    assert {setting.rollout_dtype for setting in settings} == {"bf16", "fp16", "fp32"}
    assert {POLICIES[setting.model].family for setting in settings} == {"llama", "qwen"}
    sequences = {setting.sequences for setting in settings}
    tokens = {setting.max_tokens for setting in settings}
    assert min(sequences) <= 8 and max(sequences) >= 512
    assert min(tokens) <= 16 and max(tokens) >= 2048


def test_ways_take_turns_and_severities_are_spread() -> None:
    cases = faulty(plan(DrillRequest(cases=40, causes=["off_by_one"])))
    ways = Counter(case.planned.injection.way for case in cases)
    assert ways == {"a": 20, "b": 20}
    for way in ("a", "b"):
        severities = sorted(
            case.planned.severity for case in cases if case.planned.injection.way == way
        )
        gaps = np.diff([MILDEST, *severities, 1.0])
        assert gaps.max() < 3.0 / len(severities)


def test_what_was_asked_for_is_injected_and_nothing_else() -> None:
    request = DrillRequest(
        cases=30, causes=["last_token_label", "off_by_one"], way="b", models=["tiny-qwen"]
    )
    cases = plan(request)
    assert {case.planned.injection.cause for case in cases} == {
        "last_token_label",
        "off_by_one",
        None,
    }
    assert {case.planned.injection.way for case in faulty(cases)} == {"b"}
    assert {case.planned.setting.model for case in cases} == {"tiny-qwen"}


def test_a_fault_stays_with_the_models_and_dtypes_that_it_needs() -> None:
    for case in plan(DrillRequest(cases=300)):
        injection, setting = case.planned.injection, case.planned.setting
        assert injection.models is None or setting.model in injection.models
        if injection.dtypes == ("fp32",):
            assert (setting.rollout_dtype, setting.trainer_dtype) == ("fp32", "fp32")


def test_a_quick_drill_has_no_long_responses_and_few_pairs() -> None:
    faults = faulty(plan(DrillRequest(cases=120)))
    settings = {case.planned.setting for case in faults}
    assert len(settings) <= 15
    assert max(setting.max_tokens for setting in settings) <= 256
    # One pair after the other, so that each is sampled once.
    names = [case.planned.setting.name for case in faults]
    assert sum(one != two for one, two in pairwise(names)) == len(settings) - 1


def test_the_same_seed_plans_the_same_and_another_samples_anew() -> None:
    first, again, other = (
        [(case.planned.file_name, case.planned.setting.seed) for case in plan(request)]
        for request in (
            DrillRequest(cases=50),
            DrillRequest(cases=50),
            DrillRequest(cases=50, seed=1),
        )
    )
    assert first == again
    assert not {seed for _, seed in first} & {seed for _, seed in other}
    files = [name for name, _ in first]
    assert len(set(files)) == len(files)


def test_courses_take_turns_over_small_pairs() -> None:
    runs = plan_runs(DrillRequest(runs=2 * len(COURSES)))
    counts = Counter(run.injection.description for run in runs)
    assert set(counts.values()) == {2} and len(counts) == len(COURSES)
    assert max(run.setting.sequences * run.setting.max_tokens for run in runs) <= 4096
    assert len({run.setting.model for run in runs}) > 1
    asked = plan_runs(DrillRequest(runs=8, causes=["resume_mismatch"], way="b"))
    assert {(run.injection.cause, run.injection.way) for run in asked if run.injection.cause} == {
        ("resume_mismatch", "b")
    }
    # Without a fault that has a course there is nothing to tell from healthy runs.
    assert plan_runs(DrillRequest(causes=["off_by_one"])) == ()
    assert plan_runs(DrillRequest(models=["smollm2-135m"])) == ()


@pytest.mark.parametrize("field", ["causes", "models"])
def test_unknown_names_are_refused_with_those_that_are_known(field: str) -> None:
    with pytest.raises(RequestError, match="nonsense") as refused:
        plan(DrillRequest(**{field: ["nonsense"]}))
    assert ("off_by_one" if field == "causes" else "tiny-moe") in refused.value.remedy


def test_a_fault_that_no_model_can_have_is_refused() -> None:
    with pytest.raises(RequestError, match="none of the faults"):
        plan(DrillRequest(causes=["moe_routing_flip"], models=["tiny-llama"]))


def test_a_plain_push_keeps_what_is_required() -> None:
    step = pushed_step(
        {
            "rollout_logprobs": np.zeros(3, np.float32),
            "trainer_logprobs": np.ones(3, np.float32),
            "cu_seqlens": np.array([0, 3]),
            "mask": np.array([1, 0, 1], np.uint8),
            "entropy": np.ones(3, np.float32),
            "advantages": np.ones(3, np.float32),
            "token_ids": np.arange(3, dtype=np.int32),
            "turn_ids": np.zeros(3, np.int32),
        },
        {"schema_version": "1", "rollout_dtype": "bf16", "temperature": "0.6", "model": "m"},
    )
    plain = plainly(step)
    assert set(plain.tensors()) == set(step.tensors()) - {"entropy", "advantages"}
    assert plain.metadata == {"schema_version": "1", "rollout_dtype": "bf16"}
    assert np.array_equal(plain.mask, step.mask)
