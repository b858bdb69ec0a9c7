"""Accepts a pushed step, or a shard of one, into the store.

What is there is looked at twice: before the analysis, which it may spare, and in the transaction
that writes, since another process of the service may have taken the same in between. Of two that
push the same bytes one stores them, and the other learns that they are there.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

from sqlalchemy import Connection

from driftscope_probes.durable_file import sync
from driftscope_probes.push.readers.base import StepFormat
from driftscope_probes.push.rules import PushError
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import STORAGE_RETRY_S, ServiceError, not_found
from driftscope_service.runs.answer import settle_answer
from driftscope_service.runs.ingest.analysis import (
    LARGEST_WHOLE_STEP,
    StepAnalysis,
    StepContent,
    StepPart,
    analyze_parts,
    read_part,
)
from driftscope_service.runs.ingest.intake import Intake
from driftscope_service.runs.ingest.placing import Place, place_of, reopened
from driftscope_service.runs.ingest.upload import Received, UploadKind
from driftscope_service.runs.store.runs import Run, RunRepository
from driftscope_service.runs.store.steps import NewStep, RawFile, StepRepository, StoredStep
from driftscope_service.runs.store.uploads import Shard, ShardRepository
from driftscope_service.runs.webhook.notices import NoticeRepository
from driftscope_service.store.database import CommitUnknown

#: Within the transaction that stores a step: what is there of it now, and the attempt that it
#: belongs to, or the same step where that is stored already.
Choice: TypeAlias = "StoredStep | Callable[[Run], int]"
Choose: TypeAlias = Callable[[Connection], Choice]


@dataclass(frozen=True, slots=True)
class AcceptedStep:
    stored: StoredStep
    analysis_s: float | None  # None: it already existed

    @property
    def new(self) -> bool:
        return self.analysis_s is not None


async def accept_step(
    intake: Intake,
    run: str,
    step: int,
    received: Received,
    kind: UploadKind,
    *,
    attempt: str | None = None,
) -> AcceptedStep:
    """`attempt`: the id that it was opened under; None: see `placing`."""
    async with intake.locks.hold(run, step):
        known = await asyncio.to_thread(_place, intake, run, step, attempt)
        if known.step is not None and known.step.content_sha256 == received.sha256:
            return AcceptedStep(known.step, None)
        if known.named and (there := _whole_conflict(known)) is not None:
            raise conflict(run, step, there, received)
        parts = (StepPart(received.path, kind.step_format),)
        analysis, _ = await asyncio.gather(
            intake.pool.run(analyze_parts, parts, known.facts, intake.floors),
            asyncio.to_thread(sync, received.path),
        )
        return await asyncio.to_thread(
            _store_step, intake, run, step, received, kind, analysis, attempt
        )


def _place(intake: Intake, run: str, step: int, attempt: str | None) -> Place:
    with intake.database.read() as connection:
        return place_of(connection, run, step, attempt)


def _whole_conflict(known: Place) -> str | None:
    """What is there instead of a whole step with other bytes; None: nothing."""
    if known.step is not None:
        return f"with SHA-256 {known.step.content_sha256}"
    if known.shards:
        return f"as {known.shards[0].shards} shards, in part"
    return None


def conflict(run: str, step: int, what: str, received: Received) -> ServiceError:
    return ServiceError(
        problem_kinds.STEP_CONFLICT,
        f"step {step} of run {run} was received already, {what}; this body has SHA-256 "
        f"{received.sha256}",
        remedy="send the same bytes, or another step number; a run that was started again opens "
        f"an attempt of its own: POST /v1/runs/{run}/attempts",
    )


def new_step(
    step: int,
    analysis: StepAnalysis,
    raw_files: Sequence[RawFile],
    *,
    keeps_tokens: bool = True,
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
        keeps_tokens=keeps_tokens,
    )


def record(intake: Intake, run: str, new: NewStep, choose: Choose) -> tuple[StoredStep, bool]:
    """In one transaction, durable when it returns: the step, and whether it is the new one."""
    with intake.database.write() as connection:
        chosen = choose(connection)
        if isinstance(chosen, StoredStep):
            return chosen, False
        runs, steps = RunRepository(connection), StepRepository(connection)
        of = runs.of_step(run, new.metadata)
        attempt = chosen(of)
        placed = steps.add(of.number, new, attempt=attempt)
        ShardRepository(connection).completed(of.number, new.step, attempt=attempt)
        runs.step_completed(of.number, new, placed)
        settle_answer(connection, run)
        dropped = _note_change(intake, connection, of)
        stored = steps.get(run, new.step, attempt=attempt)
    assert stored is not None
    intake.keeper.announce()
    if dropped is not None:
        intake.webhook.announce(dropped)
    return stored, True


def _note_change(intake: Intake, connection: Connection, before: Run) -> int | None:
    """What NoticeRepository.note returns; None too where nobody is to be told."""
    after = RunRepository(connection).get(before.name) if intake.webhook.on else None
    return None if after is None else NoticeRepository(connection).note(before, after)


def _store_step(
    intake: Intake,
    run: str,
    step: int,
    received: Received,
    kind: UploadKind,
    analysis: StepAnalysis,
    attempt: str | None,
) -> AcceptedStep:
    def choose(connection: Connection) -> Choice:
        known = place_of(connection, run, step, attempt)
        if known.step is not None and known.step.content_sha256 == received.sha256:
            return known.step
        there = _whole_conflict(known)
        if there is None:
            return lambda _: known.attempt
        if known.named:
            raise conflict(run, step, there, received)
        return lambda of: reopened(connection, of, step)

    with _accepted(intake, received) as file:
        raw: RawFile = {"file": file.name, "format": kind.step_format}
        new = new_step(
            step, analysis, [raw], content_sha256=received.sha256, size_bytes=received.size_bytes
        )
        stored, file.named = record(intake, run, new, choose)
    return AcceptedStep(stored, analysis.took_s if file.named else None)


@dataclass(slots=True)
class _AcceptedFile:
    name: str
    named: bool = False  # by a row


@contextmanager
def _accepted(intake: Intake, received: Received) -> Iterator[_AcceptedFile]:
    """At its lasting place; there no longer at the end, unless a row names it or may name it."""
    file = _AcceptedFile(intake.files.accept(received.path))
    try:
        yield file
    except CommitUnknown:
        file.named = True  # perhaps; the next start looks, and removes it where not
        raise
    finally:
        if not file.named:
            intake.files.remove([file.name])


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
    intake: Intake,
    place: ShardPlace,
    received: Received,
    kind: UploadKind,
    *,
    attempt: str | None = None,
) -> ShardReceipt:
    """`attempt`: the id that it was opened under; None: see `placing`."""
    async with intake.locks.hold(place.run, place.step):
        known = await asyncio.to_thread(_place, intake, place.run, place.step, attempt)
        there = _shard_conflict(known, place, received)
        if there is None and (repeated := _repeated(known, place)) is not None:
            return _receipt(place, repeated, known.shards, new=False)
        if known.named and there is not None:
            raise conflict(place.run, place.step, there, received)
        content, _ = await asyncio.gather(
            intake.pool.run(read_part, StepPart(received.path, kind.step_format)),
            asyncio.to_thread(sync, received.path),
        )
        return await asyncio.to_thread(
            _store_shard, intake, place, received, kind, content, attempt
        )


#: Between the look at the shards and the transaction they can only be deleted and pushed again, by
#: another process of the service, which nobody does three times in a row.
MOST_LOOKS: Final = 3


async def complete_step(
    intake: Intake, run: str, step: int, *, attempt: str | None = None
) -> AcceptedStep:
    """`attempt`: the id that it was opened under; None: see `placing`."""
    async with intake.locks.hold(run, step):
        for _ in range(MOST_LOOKS):
            known = await asyncio.to_thread(_place, intake, run, step, attempt)
            if known.step is not None:
                return AcceptedStep(known.step, None)
            if not known.shards:
                raise not_found("shard of step", step, f"run {run!r}")
            _check_whole(known.shards)
            completed = await _merged(intake, run, step, known, attempt)
            if completed is not None:
                return completed
    raise ServiceError(
        problem_kinds.STORAGE_UNAVAILABLE,
        f"the shards of step {step} of run {run} change while they are merged",
        headers={"Retry-After": str(STORAGE_RETRY_S)},
    )


async def _merged(
    intake: Intake, run: str, step: int, known: Place, attempt: str | None
) -> AcceptedStep | None:
    """None where its shards have changed meanwhile."""
    try:
        # In a thread: a remote storage hands them over through the network.
        parts = await asyncio.to_thread(_parts, intake, known.shards)
        large = sum(shard.tokens for shard in known.shards) > LARGEST_WHOLE_STEP
        if large:
            analysis = await intake.large_steps.analyze(parts, known.facts, intake.floors)
        else:
            analysis = await intake.pool.run(analyze_parts, parts, known.facts, intake.floors)
    except (PushError, OSError, ServiceError):
        now = await asyncio.to_thread(_place, intake, run, step, attempt)
        if (now.step, now.shards) != (known.step, known.shards):
            return None  # deleted, or completed and converted: their files are gone
        raise
    new = new_step(
        step,
        analysis,
        [_raw_file(shard) for shard in known.shards],
        keeps_tokens=not large,
        content_sha256=_joint_sha256(known.shards),
        size_bytes=sum(shard.size_bytes for shard in known.shards),
    )

    def choose(connection: Connection) -> Choice:
        now = place_of(connection, run, step, attempt)
        if now.step is not None:
            return now.step
        if now.shards != known.shards:
            raise _ShardsChanged
        return lambda _: now.attempt  # where its shards are

    try:
        stored, made = await asyncio.to_thread(record, intake, run, new, choose)
    except _ShardsChanged:
        return None
    if large and made:
        await asyncio.to_thread(intake.files.remove, [raw["file"] for raw in new.raw_files])
    return AcceptedStep(stored, analysis.took_s if made else None)


class _ShardsChanged(Exception):
    """Those that were merged are not there any more."""


def _shard_conflict(known: Place, place: ShardPlace, received: Received) -> str | None:
    """What has arrived that this shard is not part of; None: nothing, or the shard itself."""
    for shard in known.shards:
        if shard.shards != place.shards:
            return f"in {shard.shards} shards, not {place.shards}"
        if shard.shard == place.shard:
            if shard.content_sha256 == received.sha256:
                return None
            return f"shard {shard.shard} with SHA-256 {shard.content_sha256}"
    return None if known.step is None else "and is complete"


def _repeated(known: Place, place: ShardPlace) -> Shard | None:
    """The same shard, received earlier, where nothing conflicts with it."""
    return next((shard for shard in known.shards if shard.shard == place.shard), None)


def _store_shard(
    intake: Intake,
    place: ShardPlace,
    received: Received,
    kind: UploadKind,
    content: StepContent,
    attempt: str | None,
) -> ShardReceipt:
    with _accepted(intake, received) as file:
        with intake.database.write() as connection:
            known = place_of(connection, place.run, place.step, attempt)
            there = _shard_conflict(known, place, received)
            if there is None and (repeated := _repeated(known, place)) is not None:
                return _receipt(place, repeated, known.shards, new=False)
            if there is not None and known.named:
                raise conflict(place.run, place.step, there, received)
            run = RunRepository(connection).of_step(place.run, content.metadata)
            into, beside = known.attempt, known.shards
            if there is not None:
                into, beside = reopened(connection, run, place.step), ()
                settle_answer(connection, place.run)  # steps have left the series
            shard = Shard(
                step=place.step,
                shard=place.shard,
                shards=place.shards,
                content_sha256=received.sha256,
                tokens=content.tokens,
                size_bytes=received.size_bytes,
                format=kind.step_format,
                file=file.name,
                attempt=into,
            )
            ShardRepository(connection).add(run.number, shard)
            RunRepository(connection).shard_arrived(run.number)
        file.named = True
    return _receipt(place, shard, [*beside, shard], new=True)


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


def _parts(intake: Intake, there: Sequence[Shard]) -> tuple[StepPart, ...]:
    return tuple(_part(intake, shard) for shard in there)


def _part(intake: Intake, shard: Shard) -> StepPart:
    assert shard.file is not None, "an open step has its files"
    return StepPart(intake.files.path(shard.file), cast(StepFormat, shard.format))


def _raw_file(shard: Shard) -> RawFile:
    assert shard.file is not None, "an open step has its files"
    return {"file": shard.file, "format": shard.format}


def _joint_sha256(there: Sequence[Shard]) -> str:
    """Hash of the shards' hashes, in order: the merged step has no bytes of its own."""
    return hashlib.sha256(b"".join(bytes.fromhex(one.content_sha256) for one in there)).hexdigest()
