"""A received file → a stored step: already known, or analysed, made durable and recorded.

In: a body on disk. Out: the stored step and whether it is new; acknowledged only afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from driftscope_probes.durable_file import sync
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import ServiceError
from driftscope_service.runs.ingest.analysis import Dtypes, StepAnalysis, StepPart, analyze_parts
from driftscope_service.runs.ingest.incoming_file import Received
from driftscope_service.runs.ingest.intake import Intake
from driftscope_service.runs.ingest.upload import UploadKind
from driftscope_service.runs.store.runs import Run, RunRepository
from driftscope_service.runs.store.steps import NewStep, RawFile, StepRepository, StoredStep
from driftscope_service.runs.store.uploads import Shard, ShardRepository


@dataclass(frozen=True, slots=True)
class AcceptedStep:
    stored: StoredStep
    analysis_s: float | None  # None: it already existed

    @property
    def new(self) -> bool:
        return self.analysis_s is not None


@dataclass(frozen=True, slots=True)
class KnownState:
    """What has arrived of a step."""

    run: Run | None
    step: StoredStep | None
    shards: Sequence[Shard]

    @property
    def dtypes(self) -> Dtypes:
        return (
            Dtypes() if self.run is None else Dtypes(self.run.rollout_dtype, self.run.trainer_dtype)
        )


def known_state(intake: Intake, run: str, step: int) -> KnownState:
    with intake.database.read() as connection:
        found = RunRepository(connection).get(run)
        if found is None:
            return KnownState(None, None, ())
        return KnownState(
            found,
            StepRepository(connection).get(run, step),
            ShardRepository(connection).of_step(found.number, step),
        )


async def accept_step(
    intake: Intake, run: str, step: int, received: Received, kind: UploadKind
) -> AcceptedStep:
    async with intake.locks.hold(run, step):
        known = await asyncio.to_thread(known_state, intake, run, step)
        if known.step is not None:
            if known.step.content_sha256 == received.sha256:
                return AcceptedStep(known.step, None)
            raise conflict(run, step, f"with SHA-256 {known.step.content_sha256}", received)
        if known.shards:
            raise conflict(run, step, f"as {known.shards[0].shards} shards, in part", received)
        analysis, _ = await asyncio.gather(
            intake.pool.run(
                analyze_parts, (StepPart(received.path, kind.step_format),), known.dtypes
            ),
            asyncio.to_thread(sync, received.path),
        )
        stored = await asyncio.to_thread(_store, intake, run, step, received, kind, analysis)
        return AcceptedStep(stored, analysis.took_s)


def conflict(run: str, step: int, what: str, received: Received) -> ServiceError:
    return ServiceError(
        problem_kinds.STEP_CONFLICT,
        f"step {step} of run {run} was received already, {what}; this body has SHA-256 "
        f"{received.sha256}",
        remedy="send the same bytes, or another step number, or use another run",
    )


def new_step(
    step: int,
    analysis: StepAnalysis,
    raw_files: Sequence[RawFile],
    *,
    content_sha256: str,
    size_bytes: int,
) -> NewStep:
    return NewStep(
        step=step,
        content_sha256=content_sha256,
        size_bytes=size_bytes,
        shards=len(raw_files),
        raw_files=raw_files,
        tokens=analysis.content.tokens,
        sequences=analysis.content.sequences,
        metadata=analysis.content.metadata,
        crossed=analysis.crossed,
        series=analysis.series,
        analysis=analysis.document,
    )


def record(intake: Intake, run: str, new: NewStep) -> StoredStep:
    """In one transaction, durable when it returns."""
    with intake.database.write() as connection:
        runs, steps = RunRepository(connection), StepRepository(connection)
        of = runs.of_step(run, new.metadata)
        steps.add(of.number, new)
        ShardRepository(connection).completed(of.number, new.step)
        runs.step_completed(of.number, new)
        stored = steps.get(run, new.step)
    assert stored is not None
    intake.keeper.announce()
    return stored


def _store(
    intake: Intake,
    run: str,
    step: int,
    received: Received,
    kind: UploadKind,
    analysis: StepAnalysis,
) -> StoredStep:
    name = intake.files.accept(received.path)
    raw: RawFile = {"file": name, "format": kind.step_format}
    new = new_step(
        step, analysis, [raw], content_sha256=received.sha256, size_bytes=received.size_bytes
    )
    try:
        return record(intake, run, new)
    except Exception:
        intake.files.remove([name])
        raise
