"""Plan: which faults are put into which pairs, so that few cases still cover all of them.

In: a request. Out: the planned cases, those of one pair next to each other. Causes share the cases
evenly, ways of injection share those of their cause, severities are spread from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np

from driftscope_probes.diagnosis.drill.case import Injection, Setting, Way
from driftscope_probes.diagnosis.drill.courses import COURSES, Course, RunInjection
from driftscope_probes.diagnosis.drill.dump import Planned
from driftscope_probes.diagnosis.drill.faults import rounding
from driftscope_probes.diagnosis.drill.faults.rounding import HEALTHY_SETTINGS
from driftscope_probes.diagnosis.drill.lab import Lab
from driftscope_probes.diagnosis.drill.policies import POLICIES, policy_folder
from driftscope_probes.diagnosis.drill.registry import INJECTIONS
from driftscope_probes.diagnosis.drill.request import DrillRequest
from driftscope_probes.diagnosis.drill.settings import SETTINGS
from driftscope_probes.diagnosis.families.base import Level
from driftscope_probes.diagnosis.families.registry import BY_NAME
from driftscope_probes.errors import RequestError
from driftscope_probes.push.pushed_step import PushedStep, pushed_step

#: A pair is sampled once for about so many cases: what takes the time of a drill.
CASES_OF_A_PAIR = 8
FEWEST_PAIRS = 6
#: Below so many cases, no pair has longer responses than this: 2,048 decoded tokens take a quarter
#: of a minute, and each fault of the engine decodes anew.
ALL_SIZES_FROM, QUICK_TOKENS = 300, 256
#: Healthy pairs beside the faulty ones: 300 beside 600.
HEALTHY_PART = 0.5
#: Of these, other samplings and turns, and a made-up policy at published levels.
OTHER_HEALTHY_PART = 0.3
#: Spreads any number of points evenly over 0 to 1.
GOLDEN = (5**0.5 - 1) / 2
#: Below it most faults are smaller than the rounding of their pair: nothing is there to be seen.
MILDEST = 0.25
SEEDS = 10_000
#: A run is twelve steps: small ones, of the models that decode fast.
REAL_MODEL = "smollm2-135m"
MOST_RUN_SEQUENCES, MOST_RUN_TOKENS = 64, 64
#: Each third case is pushed as somebody does who sends what is required and the ids.
PLAIN_EVERY = 3
#: Causes that the required tensors show; the others need what a trainer adds.
PLAIN_LEVELS: frozenset[Level] = frozenset({"comparable", "alignment", "semantics"})
LEFT_OUT = frozenset({"entropy", "advantages", "position_ids", "prompt_lengths"})
TOLD = frozenset({"schema_version", "rollout_dtype", "trainer_dtype"})


@dataclass(frozen=True, slots=True)
class PlannedCase:
    planned: Planned
    plain: bool  # pushed without what is optional, and with metadata of the dtypes alone

    def step(self) -> PushedStep:
        step = self.planned.inject().step
        return plainly(step) if self.plain else step


def plainly(step: PushedStep) -> PushedStep:
    """Without the tensors and metadata that are seldom sent."""
    tensors = {name: value for name, value in step.tensors().items() if name not in LEFT_OUT}
    return pushed_step(
        tensors, {name: value for name, value in step.metadata.items() if name in TOLD}
    )


def plan(request: DrillRequest) -> tuple[PlannedCase, ...]:
    """Raises RequestError for causes and models that the drill does not know."""
    injections = _asked(request)
    settings = _settings(request)
    by_cause: dict[str | None, list[Injection]] = {}
    for injection in injections:
        if _fitting(injection, settings):
            by_cause.setdefault(injection.cause, []).append(injection)
    faulty = sorted(cause for cause in by_cause if cause is not None)
    if not faulty:
        if plan_runs(request):  # a resume or a sleep shows over the steps alone
            return ()
        raise RequestError(
            "none of the faults asked for can be injected into these models.",
            remedy="name more causes with --causes, or more models with --models.",
        )
    cases = [
        _case(by_cause[faulty[index % len(faulty)]], index, len(faulty), settings)
        for index in range(request.cases)
    ]
    cases += _healthy(request, by_cause.get(None, []), settings)
    order = [setting.name for setting in (*SETTINGS, *HEALTHY_SETTINGS)]
    return tuple(sorted(cases, key=lambda case: order.index(case.planned.setting.name)))


@dataclass(frozen=True, slots=True)
class PlannedRun:
    injection: RunInjection
    setting: Setting
    severity: float
    number: int

    def course(self) -> Course:
        setting = self.setting
        folder = policy_folder(setting.model)
        lab = Lab(folder, setting.rollout_dtype, setting.trainer_dtype, setting.seed)
        rng = np.random.default_rng([setting.seed, self.number])
        return self.injection.inject(lab, self.severity, rng, setting)


def plan_runs(request: DrillRequest) -> tuple[PlannedRun, ...]:
    """Courses take turns, over small pairs; none where only other causes or models are asked."""
    injections = [item for item in COURSES if _is_asked(item.cause, item.way, request)]
    settings = [
        setting
        for setting in _of_seed(_allowed(SETTINGS, request), request)
        if setting.model != REAL_MODEL
        and setting.max_tokens <= MOST_RUN_TOKENS
        and setting.sequences <= MOST_RUN_SEQUENCES
    ]
    if not settings or all(item.cause is None for item in injections):
        return ()
    return tuple(
        PlannedRun(
            injections[index % len(injections)],
            settings[(index + index // len(injections)) % len(settings)],
            round(index * GOLDEN % 1.0, 2),
            index,
        )
        for index in range(request.runs)
    )


def _is_asked(cause: str | None, way: Way, request: DrillRequest) -> bool:
    return cause is None or (
        request.way in ("both", way) and (request.causes is None or cause in request.causes)
    )


def _healthy(
    request: DrillRequest, ways: Sequence[Injection], settings: Sequence[Setting]
) -> list[PlannedCase]:
    """Most of them in settings of their own, in which only a healthy run is of interest."""
    count = round(HEALTHY_PART * request.cases)
    plain = [injection for injection in ways if injection in rounding.INJECTIONS]
    others = [injection for injection in ways if injection not in plain]
    elsewhere = round(count * OTHER_HEALTHY_PART)
    own = _of_seed(_allowed(HEALTHY_SETTINGS, request), request)
    cases = [_case(others, index, 1, settings) for index in range(elsewhere)]
    for index in range(count - elsewhere):
        setting = own[(index * len(own) // (count - elsewhere)) % len(own)]
        planned = Planned(plain[0], setting, 0.0, index)
        cases.append(PlannedCase(planned, plain=index % PLAIN_EVERY == 2))
    return cases


def _case(
    ways: Sequence[Injection], index: int, causes: int, settings: Sequence[Setting]
) -> PlannedCase:
    """Case `index` of the drill: the ways of its cause take turns, round by round."""
    turn = index // causes
    injection = ways[turn % len(ways)]
    own = turn // len(ways)  # cases that this way has had
    start = crc32(f"{injection.cause}/{injection.way}/{injection.description}".encode())
    fitting = _fitting(injection, settings)
    setting = fitting[(start + own) % len(fitting)]
    spread = (start % 1000 / 1000 + own * GOLDEN) % 1.0
    severity = round(MILDEST + (1 - MILDEST) * spread, 2)
    cause = BY_NAME.get(injection.cause or "")
    shown = injection.cause is None or (cause is not None and cause.level in PLAIN_LEVELS)
    return PlannedCase(
        Planned(injection, setting, severity, index), plain=shown and turn % PLAIN_EVERY == 2
    )


def _asked(request: DrillRequest) -> list[Injection]:
    known = sorted(
        {item.cause for item in INJECTIONS if item.cause is not None}
        | {course.cause for course in COURSES if course.cause is not None}
    )
    _check("cause", request.causes, known)
    return [
        injection for injection in INJECTIONS if _is_asked(injection.cause, injection.way, request)
    ]


def _settings(request: DrillRequest) -> list[Setting]:
    """Spread over all that the models allow, and sampled anew for another seed."""
    _check("model", request.models, list(POLICIES))
    all_of_them = _allowed(SETTINGS, request)
    count = min(len(all_of_them), max(FEWEST_PAIRS, request.cases // CASES_OF_A_PAIR))
    chosen = [all_of_them[index * len(all_of_them) // count] for index in range(count)]
    return _of_seed(chosen, request)


def _of_seed(settings: Sequence[Setting], request: DrillRequest) -> list[Setting]:
    """The settings have seeds of their own below SEEDS; another drill has others."""
    return [replace(setting, seed=setting.seed + SEEDS * request.seed) for setting in settings]


def _allowed(settings: Sequence[Setting], request: DrillRequest) -> list[Setting]:
    return [
        setting
        for setting in settings
        if (request.models is None or setting.model in request.models)
        and (request.cases >= ALL_SIZES_FROM or setting.max_tokens <= QUICK_TOKENS)
    ]


def _fitting(injection: Injection, settings: Sequence[Setting]) -> list[Setting]:
    return [setting for setting in settings if injection.fits(setting)]


def _check(what: str, given: Sequence[str] | None, known: Sequence[str]) -> None:
    unknown = [name for name in given or () if name not in known]
    if unknown:
        raise RequestError(
            f"the drill has no {what} {', '.join(map(repr, unknown))}.",
            remedy=f"give some of {', '.join(known)}.",
        )
