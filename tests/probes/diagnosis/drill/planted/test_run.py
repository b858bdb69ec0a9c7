"""Planted systems on a real vLLM engine and a real trainer, and the planner's answer to one."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftscope_probes.diagnose.planted_run import run_controls
from driftscope_probes.diagnosis.controls.engine.batch import ENGINE_BATCH_OF_ONE
from driftscope_probes.diagnosis.drill.planted import healthy
from driftscope_probes.diagnosis.drill.planted.bench_of import bench_of
from driftscope_probes.diagnosis.drill.planted.ground import Ground
from driftscope_probes.diagnosis.drill.planted.report import own_controls
from driftscope_probes.diagnosis.drill.planted.request import ControlsRequest
from driftscope_probes.diagnosis.drill.planted.systems import SYSTEMS
from driftscope_probes.errors import RequestError
from driftscope_probes.progress import Progress, discard

#: What the issue names, and what else looks like them in one step's data.
LEAST_CAUSES = 20


def test_there_is_a_system_for_many_causes() -> None:
    assert len({system.cause for system in SYSTEMS}) >= LEAST_CAUSES
    for system in SYSTEMS:
        assert system.own or own_controls(system.cause), system.cause


def test_the_planner_finds_dropout_in_a_real_trainer(tiny_llama: Path, tmp_path: Path) -> None:
    """In vLLM and in a trainer whose process drops; the data alone do not name it."""
    heard: list[Progress] = []
    request = ControlsRequest(causes=["dropout_active"], model=str(tiny_llama), seed=3)
    report = run_controls(request, tmp_path, heard.append)
    (case,) = report.cases
    assert case.right and case.ended == "sure", case
    assert case.sigma > 2.0 * case.floor
    ran = {run.control: run for run in case.runs}
    assert ran["trainer_repeat"].positive and ran["dropout_off"].positive
    # In the order of the registry the engine's controls, which are dear, come first.
    assert case.fixed_controls is not None and case.planner_controls < case.fixed_controls
    assert report.summary()["right"] == 1.0
    assert "1/1: dropout_active" in [step.detail for step in heard]
    assert not list(tmp_path.iterdir()), "weights of an answered system are left behind"


def test_a_fault_in_the_engine_process_is_caught_by_its_control(
    tiny_llama: Path, tmp_path: Path
) -> None:
    system = next(one for one in SYSTEMS if one.cause == "batch_variant_engine")
    ground = Ground(tiny_llama, tmp_path, 3)
    planted = system.build(ground)
    with bench_of(planted, tmp_path / "run") as bench:
        assert bench.known.recorded is not None
        assert ENGINE_BATCH_OF_ONE.run(bench).outcome == "dirty"


def test_a_cause_without_a_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="off_by_one has no planted system"):
        run_controls(ControlsRequest(causes=["off_by_one"]), tmp_path, discard)


def test_healthy_pairs_differ_in_model_dtypes_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_llama: Path
) -> None:
    """The drill's own policies are trained for minutes; any folder serves to see the plan."""
    monkeypatch.setattr(healthy, "policy_folder", lambda name: tiny_llama)
    pairs = [pair for _, pair in healthy.healthy_pairs(12, 0, tmp_path)]
    assert {pair.sides.engine_dtype for pair in pairs} == {"bf16", "fp32"}
    assert {pair.sides.engine.prefix_caching for pair in pairs} == {None, True}
    assert len({pair.sides.prompts for pair in pairs}) == 12
    assert all(pair.plant is None and pair.cause is None for pair in pairs)
