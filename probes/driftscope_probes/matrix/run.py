"""The matrix probe: the same work at every place, the answers compared with each other.

In: a MatrixRequest and the places. Out: the report.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from driftscope_probes.device.environment import environment
from driftscope_probes.engines.settings import EngineSettings
from driftscope_probes.errors import ProbeError, RequestError
from driftscope_probes.matrix.places.base import LocalDefinition, Place
from driftscope_probes.matrix.places.local import LocalPlace
from driftscope_probes.matrix.places.ray import ray_places
from driftscope_probes.matrix.report import (
    MatrixReport,
    Outcome,
    PlaceReport,
    differing_facts,
    overall,
    place_report,
    report_sentence,
    subject_report,
)
from driftscope_probes.matrix.request import HERE, MOST_PLACES, MatrixRequest
from driftscope_probes.matrix.work import PROTOCOL, Answer, Work, digest_of, unpack
from driftscope_probes.models.fetch import resolve
from driftscope_probes.progress import Progress, ProgressSink, discard, scaled
from driftscope_probes.prompts import demo_prompts
from driftscope_probes.tokenization import check_context, tokenize

SCHEMA_VERSION: Final = "1"
#: Fraction of the whole at which the model and the prompts are ready.
PREPARED: Final = 0.03
#: One place is compared with nothing.
LEAST_ANSWERS: Final = 2


def run_probe(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    """`places`: {name: LocalDefinition} that the operator defines; `ray_address`: of the cluster;
    `model_path`: folder of the model. All may be null.
    """
    asked = MatrixRequest(**request["request"])
    known = {
        name: LocalDefinition.model_validate(definition)
        for name, definition in (request.get("places") or {}).items()
    }
    folder = request.get("model_path")
    places = chosen_places(asked, known, request.get("ray_address"))
    return run_matrix(asked, places, workdir, progress, Path(folder) if folder else None).to_dict()


def chosen_places(
    request: MatrixRequest, known: Mapping[str, LocalDefinition], ray_address: str | None
) -> list[Place]:
    """In the order of the request, then the cluster's. Raises RequestError."""
    names = request.places
    if names is None:
        others = [name for name in known if name != HERE]
        names = [HERE, *others] if others or request.ray != "off" else [HERE, HERE]
    places: list[Place] = [_local(name, known) for name in names]
    if request.ray != "off":
        places += ray_places(ray_address or "auto", request.ray)
    if not LEAST_ANSWERS <= len(places) <= MOST_PLACES:
        raise RequestError(
            f"{len(places)} places were named, {LEAST_ANSWERS} to {MOST_PLACES} are accepted.",
            remedy="name places to compare; a name given twice runs twice.",
        )
    return places


def _local(name: str, known: Mapping[str, LocalDefinition]) -> Place:
    if name == HERE:
        return LocalPlace(HERE)
    if name not in known:
        raise RequestError(
            f"there is no place {name!r}.",
            remedy=f"name one of: {', '.join(dict.fromkeys([HERE, *known]))}.",
        )
    return LocalPlace(name, known[name].python, known[name].variables)


@dataclass(frozen=True, slots=True)
class _Seat:
    """A place under the name that it has in the report."""

    name: str
    place: Place


def _seats(places: Sequence[Place]) -> list[_Seat]:
    """A place that is there twice gets a number."""
    taken: set[str] = set()
    seats = []
    for place in places:
        name, number = place.name, 1
        while name in taken:
            number += 1
            name = f"{place.name}-{number}"
        taken.add(name)
        seats.append(_Seat(name, place))
    return seats


def run_matrix(
    request: MatrixRequest,
    places: Sequence[Place],
    workdir: Path,
    progress: ProgressSink,
    model_path: Path | None = None,
) -> MatrixReport:
    """Raises ProbeError where fewer than two places give an answer."""
    started = time.monotonic()
    name = str(model_path) if model_path else request.model
    model = resolve(name, progress=scaled(progress, 0.0, PREPARED))
    progress(Progress("preparing prompts", PREPARED))
    prompts = tokenize(model.path, demo_prompts(request.prompts), chat_template=None)
    check_context(prompts, request.max_tokens + 1, model.max_context)
    work = Work(
        protocol=PROTOCOL,
        model=str(model.path),
        fingerprint=digest_of(model),
        engine=EngineSettings(
            kind=request.engine,
            kernels=request.kernels,
            threads=request.threads,
            batch_size=request.prompts,
        ),
        engine_dtypes=tuple(request.engine_dtypes),
        trainer_dtypes=tuple(request.trainer_dtypes),
        prompts=tuple(tuple(prompts.ids(index)) for index in range(len(prompts))),
        responses=None,
        max_tokens=request.max_tokens,
        seed=request.seed,
        seconds=request.place_seconds,
    )
    seats = _seats(places)
    outcomes = dict(_outcomes(seats, work, workdir, scaled(progress, PREPARED, 1.0)))
    answers = {
        seat.name: outcome for seat in seats if isinstance(outcome := outcomes[seat.name], Answer)
    }
    reports = tuple(place_report(seat.place, seat.name, outcomes[seat.name]) for seat in seats)
    _check_answers(answers, reports)
    facts = differing_facts(answers)
    subjects = tuple(subject_report(subject, answers, facts) for subject in work.subjects())
    verdict, classes = overall(subjects)
    return MatrixReport(
        schema_version=SCHEMA_VERSION,
        kind="matrix",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model.facts(request.model),
        request=MatrixRequest(**request.model_dump()),  # with every default
        sentence=report_sentence(reports, classes, subjects),
        verdict=verdict,
        places=reports,
        classes=classes,
        subjects=subjects,
        facts=facts,
        notes=_notes(answers),
        environment=environment(),
        timing={"total_s": time.monotonic() - started},
    )


def _outcomes(
    seats: Sequence[_Seat], work: Work, workdir: Path, progress: ProgressSink
) -> Iterator[tuple[str, Outcome]]:
    """The first place that can samples the tokens; all others score the same ones."""
    left = list(seats)
    size = len(seats)
    while left and work.responses is None:
        seat = left.pop(0)
        done = size - len(left) - 1
        part = scaled(progress, done / size, (done + 1) / size, f"{seat.name}: ")
        outcome = _outcome(seat, work, workdir, part)
        yield seat.name, outcome
        if isinstance(outcome, Answer):
            responses = tuple(map(tuple, outcome.responses.tolist()))
            work = replace(work, responses=responses)
    beside = [seat for seat in left if seat.place.beside_others]
    with ThreadPoolExecutor(max(1, len(beside))) as pool:
        others = [(seat, pool.submit(_outcome, seat, work, workdir, discard)) for seat in beside]
        for index, seat in enumerate(one for one in left if not one.place.beside_others):
            done = size - len(left) + index
            part = scaled(progress, done / size, (done + 1) / size, f"{seat.name}: ")
            yield seat.name, _outcome(seat, work, workdir, part)
        for seat, future in others:
            progress(Progress(f"{seat.name}: waiting for its answer", 1.0 - 1.0 / size))
            yield seat.name, future.result()


def _outcome(seat: _Seat, work: Work, workdir: Path, progress: ProgressSink) -> Outcome:
    """A place that fails is a row of the report, not the end of the others."""
    try:
        sent = seat.place.run(work, workdir / f"place-{seat.name}", progress)
        return unpack(sent, work)
    except ProbeError as error:
        return error


def _check_answers(answers: Mapping[str, Answer], places: Sequence[PlaceReport]) -> None:
    if len(answers) >= LEAST_ANSWERS:
        return
    failed = [place for place in places if place.state == "failed"]
    reasons = "\n".join(f"{place.name}: {place.reason}" for place in failed)
    raise RequestError(
        f"{len(answers)} of {len(places)} places gave an answer; two are needed.\n{reasons}",
        remedy=failed[0].remedy or "correct the places.",
    )


def _notes(answers: Mapping[str, Answer]) -> list[str]:
    notes = [
        f"{name}: {note}" for name, one in answers.items() for note in one.facts.get("notes", [])
    ]
    return list(dict.fromkeys(map(str, notes)))
