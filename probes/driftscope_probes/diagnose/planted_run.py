"""The drill on controls: planted systems, each asked about as a user would, until an answer.

In: a ControlsRequest. Out: ControlsReport. Of each system: what the data of its step say, which
controls the planner runs and what it answers; then the controls that must speak up for this cause,
and, for comparison, all controls in fixed order until the same stop rule.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from driftscope_probes.device.environment import environment
from driftscope_probes.diagnose.fixed_order import (
    fixed_order,
    run_one,
    without_outcome,
)
from driftscope_probes.diagnose.investigation import Clock
from driftscope_probes.diagnose.request import DiagnoseRequest
from driftscope_probes.diagnose.run import Found, examine, live_diagnosis
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.registry import BY_NAME, CONTROLS
from driftscope_probes.diagnosis.drill.planted.bench_of import bench_of
from driftscope_probes.diagnosis.drill.planted.ground import Ground
from driftscope_probes.diagnosis.drill.planted.healthy import healthy_pairs
from driftscope_probes.diagnosis.drill.planted.report import (
    HEALTHY,
    CaseRun,
    ControlRun,
    ControlsReport,
    own_controls,
)
from driftscope_probes.diagnosis.drill.planted.request import ControlsRequest
from driftscope_probes.diagnosis.drill.planted.systems import SYSTEMS, PlantedSystem, System
from driftscope_probes.diagnosis.drill.policies import policy_folder
from driftscope_probes.errors import RequestError
from driftscope_probes.progress import Progress, ProgressSink, discard

#: Systems whose fault needs experts.
MIXTURE: Final = "tiny-moe"
#: The tiny policies' products are too small for a second thread to be worth its start.
THREADS: Final = 1
#: Causes of the data that a case keeps.
MOST_CAUSES: Final = 5


def run_probe(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    return run_controls(ControlsRequest(**request["request"]), workdir, progress).to_dict()


def run_controls(request: ControlsRequest, workdir: Path, progress: ProgressSink) -> ControlsReport:
    """Raises RequestError for causes that have no planted system."""
    started = time.monotonic()
    torch.set_num_threads(THREADS)
    cases = _healthy(request, workdir, progress) if request.healthy else []
    if not request.healthy:
        systems = _asked(request)
        for index, system in enumerate(systems):
            folder = workdir / f"{index}-{system.cause}"
            part = f"{index + 1}/{len(systems)}: {system.cause}"
            progress(Progress("planting and diagnosing", index / len(systems), part))
            cases.append(_case(system, request, folder))
            # Weights and logs of a system are of no use once it is answered.
            shutil.rmtree(folder, ignore_errors=True)
    return ControlsReport(
        cases=cases,
        request=request.model_dump(mode="json"),
        environment=environment(),
        seconds=round(time.monotonic() - started, 1),
    )


def _asked(request: ControlsRequest) -> list[System]:
    known = dict.fromkeys(system.cause for system in SYSTEMS)
    wanted = list(known) if request.causes is None else request.causes
    unknown = [cause for cause in wanted if cause not in known]
    if unknown:
        raise RequestError(
            f"{unknown[0]} has no planted system.", remedy=f"name one of {', '.join(known)}."
        )
    return [system for system in SYSTEMS if system.cause in wanted]


def _case(system: System, request: ControlsRequest, folder: Path) -> CaseRun:
    model = MIXTURE if system.mixture else request.model
    folder.mkdir(parents=True)
    ground = Ground(_folder(model), folder, request.seed, *system.dtypes)
    planted = system.build(ground)
    built = time.monotonic()
    with bench_of(planted, folder / "run") as bench:
        clock = Clock(time.monotonic, built)
        asked = DiagnoseRequest(model=str(ground.folder), budget=request.budget)
        found = examine(asked, bench, None, CONTROLS, clock, discard)
        seconds = time.monotonic() - built
        runs = _of_planner(found)
        own = own_controls(system.cause) if system.own is None else list(system.own)
        runs += _own(bench, own, {run.control for run in runs})
        more, fixed = fixed_order(bench, found, runs, system.cause, run_all=request.fixed_order)
        runs += more
        return _told(system, ground, bench, found, runs, own, fixed, seconds)


def _folder(model: str) -> Path:
    given = Path(model)
    return given.resolve() if given.is_dir() else policy_folder(model)


def _told(
    system: System,
    ground: Ground,
    bench: Bench,
    found: Found,
    runs: list[ControlRun],
    own: list[str],
    fixed: int | None,
    seconds: float,
) -> CaseRun:
    answer, confidence = found.planner.belief.leading
    return CaseRun(
        cause=system.cause,
        what=system.what,
        alike=system.alike,
        model=ground.folder.name,
        dtypes="/".join(system.dtypes),
        seed=ground.seed,
        data_verdict=found.diagnosis.verdict,
        data_causes=[
            [cause.name, round(cause.confidence, 3)]
            for cause in found.diagnosis.causes[:MOST_CAUSES]
        ],
        sigma=bench.base.sigma,
        floor=bench.floor_sigma,
        answer=answer,
        confidence=confidence,
        ended="at_floor" if found.verdict == "at_floor" else found.planner.ended,
        runs=runs,
        planner_controls=len(found.steps),
        own=own,
        fixed_controls=fixed,
        seconds=round(seconds, 1),
    )


def _of_planner(found: Found) -> list[ControlRun]:
    runs = [
        ControlRun(
            control=step.control,
            outcome=step.outcome,
            what=step.what,
            value=step.value,
            expected=step.expected,
            seconds=round(step.seconds or 0.0, 2),
            asked_by="planner",
        )
        for step in found.steps
    ]
    tried = {skipped.control: skipped.reason for skipped in found.planner.skipped}
    return runs + [
        without_outcome(name, reason, 0.0, "planner")
        for name, reason in tried.items()
        if not reason.startswith("it needs")
    ]


def _own(bench: Bench, own: list[str], done: set[str]) -> list[ControlRun]:
    """The controls that must speak up for this cause, as far as the planner left them out."""
    names = [name for name in own if name not in done]
    offered = [name for name in names if BY_NAME[name].needs <= bench.offers]
    return [run_one(bench, BY_NAME[name], "own") for name in offered]


def _healthy(request: ControlsRequest, workdir: Path, progress: ProgressSink) -> list[CaseRun]:
    cases = []
    for index, (ground, pair) in enumerate(healthy_pairs(request.healthy, request.seed, workdir)):
        part = f"{index + 1}/{request.healthy}: {ground.folder.name}"
        progress(Progress("controls on healthy pairs", index / request.healthy, part))
        cases.append(_healthy_case(ground, pair, request.only))
        shutil.rmtree(ground.work, ignore_errors=True)
    return cases


def _healthy_case(ground: Ground, pair: PlantedSystem, only: list[str] | None) -> CaseRun:
    started = time.monotonic()
    with bench_of(pair, ground.work / "run") as bench:
        diagnosis = live_diagnosis(bench)
        runs = [
            run_one(bench, control, HEALTHY)
            for control in CONTROLS
            if control.needs <= bench.offers and (only is None or control.name in only)
        ]
        return CaseRun(
            cause=HEALTHY,
            what="nothing",
            alike=HEALTHY,
            model=ground.folder.name,
            dtypes=f"{ground.rollout_dtype}/{ground.trainer_dtype}",
            seed=ground.seed,
            data_verdict=diagnosis.verdict,
            data_causes=[
                [cause.name, round(cause.confidence, 3)] for cause in diagnosis.causes[:MOST_CAUSES]
            ],
            sigma=bench.base.sigma,
            floor=bench.floor_sigma,
            answer=None,
            confidence=None,
            ended=None,
            runs=runs,
            planner_controls=0,
            own=[],
            fixed_controls=None,
            seconds=round(time.monotonic() - started, 1),
        )
