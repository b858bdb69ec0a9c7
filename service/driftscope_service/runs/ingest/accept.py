"""Accepts a pushed step, or a shard of one, into the store."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from driftscope_probes.durable_file import sync
from driftscope_probes.push.readers.base import StepFormat
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import ServiceError, not_found
from driftscope_service.runs.answer import settle_answer
from driftscope_service.runs.ingest.analysis import (
    RunFacts,
    StepAnalysis,
    StepContent,
    StepPart,
    analyze_parts,
    read_part,
)
from driftscope_service.runs.ingest.intake import Intake
from driftscope_service.runs.ingest.upload import Received, UploadKind
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
    def facts(self) -> RunFacts:
        if self.run is None:
            return RunFacts()
        return RunFacts(self.run.model, self.run.rollout_dtype, self.run.trainer_dtype)


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
        parts = (StepPart(received.path, kind.step_format),)
        analysis, _ = await asyncio.gather(
            intake.pool.run(analyze_parts, parts, known.facts, intake.floors),
            asyncio.to_thread(sync, received.path),
        )
        stored = await asyncio.to_thread(_store_step, intake, run, step, received, kind, analysis)
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
        verdict=analysis.verdict,
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
        settle_answer(connection, run)
        stored = steps.get(run, new.step)
    assert stored is not None
    intake.keeper.announce()
    return stored


def _store_step(
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


@dataclass(frozen=True, slots=True)
class ShardPlace:
    run: str
    step: int
    shard: int
    shards: int


@dataclass(frozen=True, slots=True)
class ShardReceipt:
    place: ShardPlace
    shard: Shard
    received: tuple[int, ...]
    new: bool

    @property
    def missing(self) -> tuple[int, ...]:
        return _missing(self.place.shards, self.received)


async def accept_shard(
    intake: Intake, place: ShardPlace, received: Received, kind: UploadKind
) -> ShardReceipt:
    async with intake.locks.hold(place.run, place.step):
        known = await asyncio.to_thread(known_state, intake, place.run, place.step)
        repeated = _repeated(known, place, received)
        if repeated is not None:
            return _receipt(place, repeated, known.shards, new=False)
        content, _ = await asyncio.gather(
            intake.pool.run(read_part, StepPart(received.path, kind.step_format)),
            asyncio.to_thread(sync, received.path),
        )
        shard = await asyncio.to_thread(_store_shard, intake, place, received, kind, content)
        return _receipt(place, shard, [*known.shards, shard], new=True)


async def complete_step(intake: Intake, run: str, step: int) -> AcceptedStep:
    async with intake.locks.hold(run, step):
        known = await asyncio.to_thread(known_state, intake, run, step)
        if known.step is not None:
            return AcceptedStep(known.step, None)
        if not known.shards:
            raise not_found("shard of step", step, f"run {run!r}")
        _check_whole(known.shards)
        parts = tuple(_part(intake, shard) for shard in known.shards)
        analysis = await intake.pool.run(analyze_parts, parts, known.facts, intake.floors)
        new = new_step(
            step,
            analysis,
            [_raw_file(shard) for shard in known.shards],
            content_sha256=_joint_sha256(known.shards),
            size_bytes=sum(shard.size_bytes for shard in known.shards),
        )
        stored = await asyncio.to_thread(record, intake, run, new)
        return AcceptedStep(stored, analysis.took_s)


def _repeated(known: KnownState, place: ShardPlace, received: Received) -> Shard | None:
    """The same shard, received earlier; 409 if it conflicts with what has arrived."""
    for shard in known.shards:
        if shard.shards != place.shards:
            raise _conflict(place, f"in {shard.shards} shards, not {place.shards}", received)
        if shard.shard == place.shard:
            if shard.content_sha256 == received.sha256:
                return shard
            raise _conflict(
                place, f"shard {shard.shard} with SHA-256 {shard.content_sha256}", received
            )
    if known.step is not None:
        raise _conflict(place, "and is complete", received)
    return None


def _conflict(place: ShardPlace, what: str, received: Received) -> ServiceError:
    return conflict(place.run, place.step, what, received)


def _store_shard(
    intake: Intake, place: ShardPlace, received: Received, kind: UploadKind, content: StepContent
) -> Shard:
    name = intake.files.accept(received.path)
    shard = Shard(
        step=place.step,
        shard=place.shard,
        shards=place.shards,
        content_sha256=received.sha256,
        tokens=content.tokens,
        size_bytes=received.size_bytes,
        format=kind.step_format,
        file=name,
    )
    try:
        with intake.database.write() as connection:
            runs = RunRepository(connection)
            run = runs.of_step(place.run, content.metadata)
            ShardRepository(connection).add(run.number, shard)
            runs.shard_arrived(run.number)
    except Exception:
        intake.files.remove([name])
        raise
    return shard


def _receipt(place: ShardPlace, shard: Shard, there: Sequence[Shard], *, new: bool) -> ShardReceipt:
    return ShardReceipt(place, shard, tuple(sorted(one.shard for one in there)), new)


def _check_whole(there: Sequence[Shard]) -> None:
    missing = _missing(there[0].shards, [shard.shard for shard in there])
    if missing:
        raise ServiceError(
            problem_kinds.SHARDS_MISSING,
            f"{len(missing)} of {there[0].shards} shards have not arrived, the first is "
            f"{missing[0]}",
            missing=list(missing),
            remedy="send them, then complete the step",
        )


def _missing(shards: int, there: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(set(range(shards)) - set(there)))


def _part(intake: Intake, shard: Shard) -> StepPart:
    assert shard.file is not None, "an open step has its files"
    return StepPart(intake.files.path(shard.file), cast(StepFormat, shard.format))


def _raw_file(shard: Shard) -> RawFile:
    assert shard.file is not None, "an open step has its files"
    return {"file": shard.file, "format": shard.format}


def _joint_sha256(there: Sequence[Shard]) -> str:
    """Hash of the shards' hashes, in order: the merged step has no bytes of its own."""
    return hashlib.sha256(b"".join(bytes.fromhex(one.content_sha256) for one in there)).hexdigest()
