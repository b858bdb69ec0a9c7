"""The drill: faults into real pairs, their data through a trainer's path, the answers scored.

In: a request. Out: a report. Each case is written as a push file, read back and analysed like any
other; then once more with the detector of its very cause removed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from driftscope_probes.device.environment import environment
from driftscope_probes.diagnosis.cause import Diagnosis
from driftscope_probes.diagnosis.diagnose import diagnose
from driftscope_probes.diagnosis.drill.course_score import CourseAnswer
from driftscope_probes.diagnosis.drill.dump import HEALTHY, save_step
from driftscope_probes.diagnosis.drill.floors import floor_of
from driftscope_probes.diagnosis.drill.plan import PlannedCase, PlannedRun, plan, plan_runs
from driftscope_probes.diagnosis.drill.policies import policy_folder
from driftscope_probes.diagnosis.drill.report import AnsweredCase, DrillReport
from driftscope_probes.diagnosis.drill.request import DrillRequest
from driftscope_probes.diagnosis.drill.score import Answer, answered, score
from driftscope_probes.diagnosis.families.registry import CAUSES
from driftscope_probes.diagnosis.observed import observed_of
from driftscope_probes.diagnosis.over_steps import RunPoint, diagnose_run
from driftscope_probes.errors import RequestError
from driftscope_probes.progress import Progress, ProgressSink, scaled
from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.push.step_file import read_step

#: Part of the progress in which the models are made ready; minutes at the first time.
PREPARED = 0.1
CASES_DONE = 0.85
#: The tiny policies' products are too small for a second thread to be worth its start.
THREADS = 1
#: A detector that asks another one and adds what the metadata say goes with it.
BUILT_ON: Mapping[str, str] = {"generation_config_defaults": "truncation_renorm"}
HEALTHY_CAUSES = frozenset(cause.name for cause in CAUSES if cause.healthy)


def run_probe(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    """`keep`: whether the push files stay in `workdir`."""
    asked = DrillRequest(**request["request"])
    return run_drill(asked, workdir, progress, keep=bool(request.get("keep"))).to_dict()


def run_drill(
    request: DrillRequest, workdir: Path, progress: ProgressSink, *, keep: bool = False
) -> DrillReport:
    """Raises ProbeError with a remedy."""
    started = time.monotonic()
    torch.set_num_threads(THREADS)
    if request.again is not None:
        return _answered_again(request, request.again, progress, started)
    cases, runs = plan(request), plan_runs(request)
    models = sorted(
        {case.planned.setting.model for case in cases} | {run.setting.model for run in runs}
    )
    for index, model in enumerate(models):
        part = (PREPARED * index / len(models), PREPARED * (index + 1) / len(models))
        policy_folder(model, scaled(progress, *part, f"{model}: "))
    answers, told = [], []
    for index, case in enumerate(cases):
        cause = case.planned.injection.cause or "a healthy pair"
        done = PREPARED + (CASES_DONE - PREPARED) * index / len(cases)
        progress(Progress("injecting and diagnosing", done, f"{index}/{len(cases)}: {cause}"))
        answer = _answer(case, workdir / case.planned.file_name, keep)
        answers.append(answer)
        told.append(_told(case, answer))
    courses = []
    for index, run in enumerate(runs):
        cause = run.injection.cause or "a healthy run"
        done = CASES_DONE + (1.0 - CASES_DONE) * index / len(runs)
        progress(Progress("runs of twelve steps", done, f"{index}/{len(runs)}: {cause}"))
        courses.append(_course_answer(run, workdir, keep))
    return DrillReport(
        score(answers, HEALTHY_CAUSES),
        tuple(told),
        tuple(courses),
        request,
        environment(),
        round(time.monotonic() - started, 1),
    )


def _answered_again(
    request: DrillRequest, folder: Path, progress: ProgressSink, started: float
) -> DrillReport:
    """The files of a folder, by the causes that their names hold."""
    files = [
        file for file in sorted(folder.glob("*__*__*__*__*.safetensors")) if _wanted(file, request)
    ]
    if not files:
        raise RequestError(
            f"{folder} has no push file of a drill that was asked for.",
            remedy="give a folder that `driftscope drill --out` or the drill's dump has written.",
        )
    answers, told = [], []
    for index, file in enumerate(files):
        name, way, severity, setting, _ = file.stem.split("__")
        cause = None if name == HEALTHY else name
        progress(Progress("diagnosing", index / len(files), f"{index}/{len(files)}: {name}"))
        step = read_step(file)
        diagnosis, without = diagnosed_step(step, cause)
        metadata = step.metadata
        model = metadata.get("model", "a pair without a model's name")
        dtypes = f"{metadata.get('rollout_dtype', '?')}/{metadata.get('trainer_dtype', '?')}"
        answers.append(
            Answer(
                cause,
                float(severity),
                way if cause else "",
                f"{model} {dtypes}",
                diagnosis,
                without,
            )
        )
        told.append(
            AnsweredCase(
                file.name,
                cause,
                way,
                float(severity),
                setting,
                False,
                answered(diagnosis),
                tuple(item.name for item in diagnosis.causes[:3]),
                diagnosis.causes[0].confidence if diagnosis.causes else None,
                answered(without) if without else None,
            )
        )
    return DrillReport(
        score(answers, HEALTHY_CAUSES),
        tuple(told),
        (),
        request,
        environment(),
        round(time.monotonic() - started, 1),
    )


def _wanted(file: Path, request: DrillRequest) -> bool:
    name, way, *_ = file.stem.split("__")
    if name == HEALTHY:
        return True
    asked = request.causes is None or name in request.causes
    return asked and request.way in ("both", way)


def _answer(case: PlannedCase, file: Path, keep: bool) -> Answer:
    save_step(case.step(), file)
    planned = case.planned
    try:
        diagnosis, without = diagnosed(file, planned.injection.cause)
    finally:
        if not keep:
            file.unlink()
    setting = planned.setting
    return Answer(
        planned.injection.cause,
        planned.severity,
        planned.injection.way if planned.injection.cause else "",
        f"{setting.model} {setting.rollout_dtype}/{setting.trainer_dtype}",
        diagnosis,
        without,
    )


def diagnosed(file: Path, cause: str | None) -> tuple[Diagnosis, Diagnosis | None]:
    """As `driftscope analyze` does it; and, of a fault, with the detector of `cause` removed."""
    return diagnosed_step(read_step(file), cause)


def diagnosed_step(step: PushedStep, cause: str | None) -> tuple[Diagnosis, Diagnosis | None]:
    """The same of a step that has been read."""
    observed = observed_of(step)
    floor = floor_of(step.metadata)
    if cause is None:
        return diagnose(observed, floor), None
    left_out = {cause, *(name for name, base in BUILT_ON.items() if base == cause)}
    return diagnose(observed, floor), diagnose(observed, floor, without=left_out)


def _course_answer(run: PlannedRun, workdir: Path, keep: bool) -> CourseAnswer:
    """Each step on a trainer's path, and what is kept of them read together."""
    course = run.course()
    cause = run.injection.cause
    name = f"run-{run.number}-{cause or 'healthy'}"
    points = []
    for index, step in enumerate(course.steps):
        file = workdir / f"{name}-{index:02d}.safetensors"
        save_step(step, file)
        diagnosis, _ = diagnosed(file, None)
        if not keep:
            file.unlink()
        named = diagnosis.cause.name if diagnosis.cause else None
        resumed = index == course.resumed
        points.append(RunPoint(index, diagnosis.excess, _entropy(step), resumed, named))
    causes = diagnose_run(points)
    return CourseAnswer(
        cause,
        run.injection.way,
        run.severity,
        run.setting.name,
        tuple(item.name for item in causes),
        causes[0].confidence if causes else 0.0,
        tuple(point.excess for point in points),
    )


def _entropy(step: PushedStep) -> float | None:
    """Mean over the tokens that take part, nats."""
    entropy = step.extras.entropy
    return None if entropy is None else float(entropy[step.mask].mean())


def _told(case: PlannedCase, answer: Answer) -> AnsweredCase:
    planned, causes = case.planned, answer.diagnosis.causes
    return AnsweredCase(
        planned.file_name,
        planned.injection.cause,
        planned.injection.way,
        planned.severity,
        planned.setting.name,
        case.plain,
        answered(answer.diagnosis),
        tuple(cause.name for cause in causes[:3]),
        causes[0].confidence if causes else None,
        answered(answer.without) if answer.without else None,
    )
