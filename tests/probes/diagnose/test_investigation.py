"""The loop of plan, run, update: on a pair in memory, with controls of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from driftscope_probes.diagnose.investigation import GIVEN, Clock
from driftscope_probes.diagnose.recorded import StepData, step_data
from driftscope_probes.diagnose.request import DiagnoseRequest
from driftscope_probes.diagnose.run import Found, examine
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, Need, NotExercised
from driftscope_probes.diagnosis.controls.registry import CONTROLS
from driftscope_probes.diagnosis.controls.sides import TrainerChange
from driftscope_probes.diagnosis.diagnose import diagnose
from driftscope_probes.diagnosis.families.registry import BY_NAME
from driftscope_probes.diagnosis.observed import observed_of
from driftscope_probes.diagnosis.planner import SURE_FROM
from driftscope_probes.errors import EngineError
from driftscope_probes.progress import Progress, Told
from driftscope_probes.push.pushed_step import PushedStep, pushed_step

from .pair_in_memory import PROMPTS, RESPONSES, Made, values

DROPOUT = {"dropout_active": 0.97}


def quiet(bench: Bench) -> Measurement:
    return bench.fallen(bench.gap(trainer=TrainerChange(quiet=True)), "nothing drawn")


def absent(_: Bench) -> Measurement:
    raise NotExercised("nothing was cached", remedy="give longer prompts.")


def broken(_: Bench) -> Measurement:
    raise EngineError("the engine died", remedy="look at its log.")


def control(
    name: str,
    run: Callable[[Bench], Measurement],
    points_to: Mapping[str, float] = DROPOUT,
    *,
    cost_s: float = 1.0,
    needs: frozenset[Need] = frozenset(),
) -> Control:
    return Control(
        name,
        f"Do {name}",
        "",
        "",
        cost_s,
        "clean",
        points_to,
        run,
        needs=needs,
    )


class Ticks:
    """A clock that moves by one second whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def run(
    bench: Bench,
    controls: Sequence[Control],
    data: StepData | None = None,
    told: list[Progress] | None = None,
    **fields: Any,
) -> Found:
    request = DiagnoseRequest(model="m", **fields)
    heard: list[Progress] = [] if told is None else told
    return examine(request, bench, data, controls, Clock(Ticks(), 0.0), heard.append)


def pushed(fault: float, *, prompts: bool = True) -> PushedStep:
    noise = np.random.default_rng(5).normal(0.0, fault, 100).astype(np.float32)
    tensors = {
        "rollout_logprobs": values(1),
        "trainer_logprobs": values(1) + noise,
        "cu_seqlens": np.array([0, 40, 100]),
        "token_ids": np.concatenate([np.array(one, np.int32) for one in RESPONSES]),
    }
    if prompts:
        tensors["prompt_lengths"] = np.array([3, 2], np.int32)
        tensors["prompt_token_ids"] = np.concatenate([np.array(p, np.int32) for p in PROMPTS])
    return pushed_step(tensors, {"rollout_dtype": "bfloat16", "trainer_dtype": "bf16"})


def data_of(step: PushedStep) -> StepData:
    return step_data(step, diagnose(observed_of(step)))


def test_controls_name_the_cause_and_tell_every_step() -> None:
    made = Made()
    told: list[Progress] = []
    found = run(made.bench(), [control(name, quiet) for name in ("a", "b", "c")], told=told)
    assert found.verdict == "explained" and found.planner.ended == "sure"
    name, probability = found.planner.belief.leading
    assert name == "dropout_active" and probability >= SURE_FROM
    first = found.steps[0]
    assert first.outcome == "clean" and first.value is not None and first.value < 0.01
    assert first.seconds == 1.0 and first.belief[0].cause == "dropout_active"
    assert "splits dropout_active" in first.reason
    whys = [one.told["why"] for one in told if isinstance(one, Told) and "why" in one.told]
    founds = [one.told["found"] for one in told if isinstance(one, Told) and "found" in one.told]
    assert whys == [step.reason for step in found.steps]
    assert founds == [step.sentence for step in found.steps]
    fractions = [one.fraction for one in told]
    assert fractions == sorted(fractions) and fractions[-1] <= 1.0
    assert made.engine.asked == 1  # what was asked before is not run again


def test_a_control_that_fails_costs_itself_only() -> None:
    made = Made()
    controls = [control("absent", absent, cost_s=0.5), control("broken", broken, cost_s=0.5)]
    found = run(made.bench(), [*controls, control("one", quiet), control("two", quiet)])
    assert [step.control for step in found.steps] == ["one", "two"]
    reasons = {one.control: one.reason for one in found.planner.skipped}
    assert reasons == {
        "absent": "it did not happen here: nothing was cached",
        "broken": "it failed: the engine died",
    }


def test_the_budget_ends_it_and_a_control_begun_is_finished() -> None:
    made = Made()
    controls = [control(str(index), quiet) for index in range(9)]
    found = run(made.bench(), controls, budget=2)
    assert found.planner.ended == "budget" and len(found.steps) == 1
    assert found.verdict == "unexplained"


def test_given_outcomes_come_first_and_are_not_run() -> None:
    made = Made()
    name = next(one.name for one in CONTROLS if "dropout_active" in one.points_to)
    real = next(one for one in CONTROLS if one.name == name)
    found = run(made.bench(), [real, control("one", quiet)], control=[f"{name}={real.positive}"])
    assert (found.steps[0].control, found.steps[0].reason) == (name, GIVEN)
    assert found.steps[0].seconds is None and found.steps[0].what is None
    assert [step.control for step in found.steps].count(name) == 1


def test_a_healthy_pair_has_nothing_to_explain() -> None:
    found = run(Made(fault=0.0).bench(), [control("one", quiet)])
    assert found.verdict == "at_floor" and found.steps == []


@pytest.mark.parametrize("prompts", [True, False])
def test_a_step_that_does_not_reproduce(prompts: bool) -> None:
    """The pair is healthy, the recorded trainer is not: only controls on the record count."""
    data = data_of(pushed(2.0, prompts=prompts))
    assert data.diagnosis.verdict not in ("at_floor", "bitwise_equal")
    made = Made(fault=0.0, recorded=data.recorded)
    needs: frozenset[Need] = frozenset({"recorded"})
    controls = [control("live", quiet), control("of the record", quiet, needs=needs)]
    found = run(made.bench(), controls, data)
    assert found.verdict in ("not_reproduced", "explained")
    assert "live" not in [step.control for step in found.steps]
    assert (found.side is not None) == prompts
    if prompts:
        assert found.side is not None and "the trainer's are not" in found.side
        assert found.remedy is not None and "the trainer of that step" in found.remedy
        assert not BY_NAME[found.planner.belief.leading[0]].healthy


def test_a_step_at_its_floor_and_a_healthy_pair() -> None:
    data = data_of(pushed(0.01))
    found = run(Made(fault=0.0, recorded=data.recorded).bench(), [control("one", quiet)], data)
    assert found.verdict == "at_floor"


def test_what_a_step_brings_survives_its_way_to_the_process() -> None:
    step = pushed(2.0)
    step.trainer.setflags(write=True)
    step.trainer[3] = np.nan  # JSON has none
    data = data_of(step)
    again = StepData.read(data.to_dict())
    assert again.diagnosis.to_dict() == data.diagnosis.to_dict()
    assert (again.rollout_dtype, again.trainer_dtype) == ("bf16", "bf16")
    assert again.recorded is not None and data.recorded is not None
    assert again.recorded.sequences == data.recorded.sequences
    assert again.recorded.sequences.prompts == PROMPTS
    assert again.recorded.trainer.tobytes() == step.trainer.tobytes()
    assert again.recorded.rollout.tobytes() == step.rollout.tobytes()


def test_masked_responses_and_missing_prompts_are_not_run_again() -> None:
    assert data_of(pushed(1.0, prompts=False)).recorded is None
    step = pushed(1.0)
    step.mask.setflags(write=True)
    step.mask[10] = False
    recorded = data_of(step).recorded
    assert recorded is not None and recorded.sequences.responses == (RESPONSES[1],)
    assert recorded.rollout.size == 60
