"""Diagnosis by controls: a live pair, the data's ranked causes, then control after control.

In: a DiagnoseRequest and what a step brings. Out: the report, with every step and its reason.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.device.environment import environment
from driftscope_probes.diagnose.investigation import BEGIN, Clock, hear_given, investigate
from driftscope_probes.diagnose.pair import Folders, pair_of
from driftscope_probes.diagnose.possible import beyond_rounding, possible_here
from driftscope_probes.diagnose.recorded import StepData
from driftscope_probes.diagnose.report import (
    FINE,
    DiagnoseReport,
    Ranked,
    SkippedControl,
    Source,
    Step,
    Verdict,
    final_causes,
    gap_record,
    listed,
    sentence_of,
)
from driftscope_probes.diagnose.request import DiagnoseRequest
from driftscope_probes.diagnose.sides_apart import SIDE_CONTROL, recorded_sides, side_sentence
from driftscope_probes.diagnosis.cause import Diagnosis
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.live_engine import LiveEngine
from driftscope_probes.diagnosis.controls.live_trainer import LiveTrainer
from driftscope_probes.diagnosis.controls.registry import BY_NAME, CONTROLS
from driftscope_probes.diagnosis.diagnose import diagnose
from driftscope_probes.diagnosis.floor import AT_FLOOR_UP_TO
from driftscope_probes.diagnosis.observed import observed_of
from driftscope_probes.diagnosis.planner import SURE_FROM, UNEXPLAINED, Belief, Planner, prior_of
from driftscope_probes.progress import Progress, ProgressSink, Told, scaled
from driftscope_probes.push.pushed_step import pushed_step

SCHEMA_VERSION: Final = "1"
#: Fraction of the whole at which the engine begins to be started.
RESOLVED: Final = 0.05


def run_probe(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    """`model_path`, `trainer_model_path`, `older_paths`: folders that were resolved; `floors`:
    where floors are kept; `data`: StepData, `source`: where it is from. All may be null.
    """
    older, data, source = request.get("older_paths"), request.get("data"), request.get("source")
    report = run_diagnosis(
        DiagnoseRequest(**request["request"]),
        workdir,
        progress,
        folders=Folders(
            model=_path(request.get("model_path")),
            trainer_model=_path(request.get("trainer_model_path")),
            older_models=tuple(map(_path, older or ())),
            floors=_path(request.get("floors")),
        ),
        data=None if data is None else StepData.read(data),
        source=None if source is None else Source(**source),
    )
    return report.to_dict()


def _path(given: str | None) -> Path | None:
    return Path(given) if given else None


@dataclass(frozen=True, slots=True)
class Found:
    """What a bench came to."""

    diagnosis: Diagnosis  # of the data: the step's, or the live pair's own
    prior: list[Ranked]
    steps: list[Step]
    planner: Planner
    verdict: Verdict
    side: str | None
    remedy: str | None  # of a step that does not reproduce; None: the leading cause's
    notes: list[str]


def run_diagnosis(
    request: DiagnoseRequest,
    workdir: Path,
    progress: ProgressSink,
    *,
    folders: Folders,
    data: StepData | None = None,
    source: Source | None = None,
    controls: Sequence[Control] = CONTROLS,
) -> DiagnoseReport:
    """Raises ProbeError with a remedy where the pair itself cannot be run."""
    started = time.monotonic()
    pair = pair_of(request, folders, data, scaled(progress, 0.0, RESOLVED))
    bench = Bench(
        pair.sides,
        LiveEngine(pair.sides, workdir / "engine"),
        LiveTrainer(pair.sides, workdir / "trainer"),
        pair.known,
    )
    try:
        progress(Progress("measuring the difference of the live pair", RESOLVED))
        base = bench.base
        base_s = time.monotonic() - started
        found = examine(request, bench, data, controls, Clock(time.monotonic, started), progress)
    finally:
        bench.close()
    belief, floor = found.planner.belief, pair.known.floor
    gap = gap_record(base)
    fine = found.verdict == "at_floor"
    causes = [] if fine else final_causes(belief)
    named = None if fine or belief.leading[0] == UNEXPLAINED else causes[0]
    remedy = found.remedy or (None if named is None else named.remedy)
    total_s = time.monotonic() - started
    return DiagnoseReport(
        schema_version=SCHEMA_VERSION,
        kind="diagnose",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=pair.model.facts(request.model),
        request=DiagnoseRequest(**request.model_dump()),  # with every default
        source=source,
        sentence=sentence_of(found.verdict, found.steps, belief, gap, floor.sigma),
        verdict=found.verdict,
        ended="at_floor" if fine else found.planner.ended or "nothing_left",
        base=gap,
        floor=floor.to_dict(),
        recorded=None if data is None else found.diagnosis.to_dict(),
        prior=found.prior,
        steps=found.steps,
        skipped=[
            SkippedControl(control=one.control, reason=one.reason) for one in found.planner.skipped
        ],
        causes=causes,
        side=found.side,
        remedy=remedy,
        notes=[*found.notes, *pair.known.notes],
        environment=environment(),
        timing={"base_s": base_s, "controls_s": total_s - base_s, "total_s": total_s},
    )


def examine(
    request: DiagnoseRequest,
    bench: Bench,
    data: StepData | None,
    controls: Sequence[Control],
    clock: Clock,
    progress: ProgressSink,
) -> Found:
    """From the first gap to the last control. Raises ProbeError where the base gap cannot be had.

    Where the pair is at the floor, a change can only leave it there: only controls on the recorded
    tokens say anything then.
    """
    live = data is None
    diagnosis = live_diagnosis(bench) if data is None else data.diagnosis
    belief = prior_of(diagnosis.causes)
    if bench.base.sigma > AT_FLOOR_UP_TO * bench.floor_sigma:
        belief = possible_here(belief, bench.sides, bench.known)
    prior = listed(belief)
    at_floor = bench.base.sigma <= AT_FLOOR_UP_TO * bench.floor_sigma
    fine = at_floor and (live or diagnosis.verdict in FINE)
    usable = controls if not at_floor else [c for c in controls if "recorded" in c.needs]
    planner = Planner(
        () if fine else usable, belief, offers=bench.offers, budget_s=float(request.budget)
    )
    steps = [] if fine else hear_given(planner, controls, request.outcomes)
    notes = _notes(bench)
    if fine:
        return Found(diagnosis, prior, steps, planner, "at_floor", None, None, notes)
    recorded = None
    if at_floor:
        said = "the step's difference does not reproduce here: the live pair is at the floor"
        progress(Told("comparing with the step", BEGIN, said, {"why": said}))
        recorded = recorded_sides(bench)
        if recorded is not None and recorded.outcome is not None:
            planner.belief = beyond_rounding(planner.belief)
            planner.heard(BY_NAME[SIDE_CONTROL], recorded.outcome)
    steps += investigate(bench, planner, clock, progress)
    side = side_sentence(steps) if recorded is None else recorded.sentence
    remedy = None if recorded is None else recorded.remedy
    if planner.ended != "sure":
        notes += [f"{one.control} would tell more: {one.reason}." for one in planner.would_tell]
    verdict = _verdict(at_floor, planner.belief)
    return Found(diagnosis, prior, steps, planner, verdict, side, remedy, notes)


def _verdict(at_floor: bool, belief: Belief) -> Verdict:
    name, probability = belief.leading
    if probability >= SURE_FROM and name != UNEXPLAINED:
        return "explained"
    return "not_reproduced" if at_floor else "unexplained"


def live_diagnosis(bench: Bench) -> Diagnosis:
    """What the data of the live pair say by themselves. Raises ProbeError."""
    sampled = bench.sample()
    lengths = [len(prompt) for prompt in sampled.sequences.prompts]
    tensors: dict[str, NDArray[Any]] = {
        "rollout_logprobs": sampled.logprobs,
        "trainer_logprobs": bench.score(sampled.sequences),
        "cu_seqlens": sampled.sequences.cu_seqlens,
        "token_ids": np.concatenate(
            [np.array(one, np.int32) for one in sampled.sequences.responses]
        ),
        "prompt_lengths": np.array(lengths, np.int32),
    }
    sides = bench.sides
    metadata = {
        "rollout_dtype": sides.engine_dtype,
        "trainer_dtype": sides.trainer_mode,
        "logprobs_mode": sides.engine.logprobs_mode,
        "temperature": str(sides.sampling.temperature),
    }
    if sides.adapter is not None:
        metadata["adapter"] = sides.adapter.path.name
    return diagnose(observed_of(pushed_step(tensors, metadata)), bench.known.floor)


def _notes(bench: Bench) -> list[str]:
    floor = bench.known.floor
    if floor.source == "calibrated":
        return []
    return [
        f"The floor, sigma {floor.sigma:.2g}, is a prior of {floor.rollout_dtype} and not "
        "measured: driftscope floor measures it, and smaller faults are then seen."
    ]
