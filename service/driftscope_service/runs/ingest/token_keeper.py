"""Token data after the answer: which steps keep it, converted to Parquet in the background."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from sqlalchemy.exc import OperationalError

from driftscope_probes.push import PushError, StepFormat
from driftscope_service.runs.ingest.analysis import StepPart, whole_step
from driftscope_service.runs.store.steps import StepRepository, StepTokens
from driftscope_service.runs.store.token_files import write_tokens
from driftscope_service.runs.store.uploads import ShardRepository, StepFiles
from driftscope_service.store.database import Database
from driftscope_service.store.leases import LeaseRepository
from driftscope_service.store.storage.base import Storage
from driftscope_service.store.storage.sweep import SWEEP_EVERY_S, sweep


@dataclass(frozen=True, slots=True)
class KeptStep:
    """The stored tokens of one step; (run, step) is unique among those not superseded."""

    run: str
    step: int
    size_bytes: int
    received_at: datetime  # all with a time zone or all without
    crossed_limit: bool  # the step crossed a limit of the comparison
    superseded: bool = False  # a later attempt of the run has its place
    number: int = 0  # tells steps of the same run and step apart


def tokens_to_drop(kept: Sequence[KeptStep], ring_steps: int, budget_bytes: int) -> list[KeptStep]:
    """Chosen so that what remains fits the budget.

    Kept are the `ring_steps` highest steps of the series of every run and all that crossed a limit.
    Over the budget go first the others of the ring and what a later attempt superseded, then those
    of the series that crossed a limit, and last the newest
    step of each run (the highest in its ring), so that each run shows its last tokens while the
    budget lasts; within each of these three the ones received first go first. The step received
    last of all runs' newest therefore goes only where it alone exceeds the budget.
    """
    rings = _rings(kept, ring_steps)
    ring = {one for members in rings for one in members}
    newest = {members[0] for members in rings}
    by_age = sorted(kept, key=_age)
    dropped = [one for one in by_age if one not in ring and not one.crossed_limit]
    remaining = sum(one.size_bytes for one in kept) - sum(one.size_bytes for one in dropped)
    stays = set(kept) - set(dropped)
    # Stable: steps of equal priority stay in order of age.
    for one in sorted(
        (one for one in by_age if one in stays),
        key=lambda one: 2 if one in newest else int(one.crossed_limit and not one.superseded),
    ):
        if remaining <= budget_bytes:
            break
        dropped.append(one)
        remaining -= one.size_bytes
    return dropped


def _rings(kept: Sequence[KeptStep], ring_steps: int) -> list[list[KeptStep]]:
    """The highest steps of every run, highest first; none is empty."""
    runs: dict[str, list[KeptStep]] = defaultdict(list)
    for one in sorted(kept, key=lambda one: one.step, reverse=True):
        if not one.superseded:
            runs[one.run].append(one)
    return [steps[:ring_steps] for steps in runs.values() if ring_steps > 0]


def _age(one: KeptStep) -> tuple[datetime, str, int, int]:
    """First received first; the rest makes the order deterministic."""
    return one.received_at, one.run, one.step, one.number


#: An accepted step is announced at once; this is for a busy database and for open steps.
IDLE_POLL_S = 60.0
#: One instance converts and drops at a time. What another one that was killed held is free after
#: this; a conversion that takes longer is checked when it is recorded, and is only done twice.
KEEPER_LEASE = "tokens"
LEASE_S = 10.0
_log = logging.getLogger("driftscope")


class TokenKeeper:
    def __init__(
        self,
        database: Database,
        files: StepFiles,
        storage: Storage,
        instance: str,
        *,
        ring_steps: int,
        budget_bytes: int,
        open_step_s: float,
    ) -> None:
        self._database = database
        self._files = files
        self._storage = storage
        self._instance = instance
        self._renew_at = self._sweep_at = -math.inf
        self._ring_steps = ring_steps
        self._budget_bytes = budget_bytes
        self._open_step = timedelta(seconds=open_step_s)
        self._announced = threading.Event()
        self._stopping = threading.Event()
        self._unreadable: set[int] = set()
        self._thread = threading.Thread(target=self._work, name="token-keeper", daemon=True)

    def start(self) -> None:
        self._announced.set()
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def announce(self) -> None:
        """A step has been accepted."""
        self._announced.set()

    def stop(self) -> None:
        """Waits for a conversion under way. May be called twice."""
        self._stopping.set()
        self._announced.set()
        if self._thread.ident is not None:  # it was started
            self._thread.join()

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                waits_s = IDLE_POLL_S if self._tidy() else LEASE_S
            except (OperationalError, OSError) as error:
                _log.error("tokens cannot be put in order, and wait: %s", error)
                waits_s = IDLE_POLL_S
            except Exception:
                # A thread that ends would let raw uploads fill the disk.
                _log.exception("the token keeper failed")
                waits_s = IDLE_POLL_S
            self._announced.wait(waits_s)
            self._announced.clear()
        self._release()

    def _tidy(self) -> bool:
        """False where another instance does this work."""
        if not self._hold():
            return False
        self._abandon_open_steps()
        while not self._stopping.is_set() and self._hold():
            kept = self._drop(self._kept())
            waiting = [
                tokens
                for tokens in kept
                if tokens.raw_files is not None and tokens.number not in self._unreadable
            ]
            if not waiting:
                self._sweep()
                break
            self._convert(waiting[0])
        return True

    def _hold(self) -> bool:
        """Take the lease, or renew it in time."""
        if time.monotonic() < self._renew_at:
            return True
        with self._database.write() as connection:
            lease = LeaseRepository(connection).take(KEEPER_LEASE, self._instance, LEASE_S)
        self._renew_at = -math.inf if lease is None else time.monotonic() + LEASE_S / 2
        return lease is not None

    def _release(self) -> None:
        try:
            with self._database.write() as connection:
                LeaseRepository(connection).release(KEEPER_LEASE, self._instance)
        except OperationalError as error:
            _log.error("the lease of the tokens runs out by itself: %s", error)

    def _sweep(self) -> None:
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + SWEEP_EVERY_S
            sweep(self._database, self._storage, self._instance)

    def _kept(self) -> list[StepTokens]:
        with self._database.read() as connection:
            return StepRepository(connection).kept()

    def _abandon_open_steps(self) -> None:
        with self._database.write() as connection:
            left = ShardRepository(connection).abandon(datetime.now(UTC) - self._open_step)
        self._files.remove(left)

    def _drop(self, kept: Sequence[StepTokens]) -> list[StepTokens]:
        """Apply retention; return what stays. Dropping first saves useless conversions."""
        of = {tokens.number: tokens for tokens in kept}
        candidates = [
            KeptStep(
                one.run,
                one.step,
                one.kept_bytes,
                one.received_at,
                one.crossed,
                one.superseded,
                one.number,
            )
            for one in kept
        ]
        for one in tokens_to_drop(candidates, self._ring_steps, self._budget_bytes):
            tokens = of.pop(one.number)
            with self._database.write() as connection:
                StepRepository(connection).dropped(tokens.number)
            self._files.remove(tokens.files)
        return list(of.values())

    def _convert(self, tokens: StepTokens) -> None:
        part = self._files.new_tokens_part()
        try:
            size = write_tokens(part, whole_step(self._parts(tokens)))
            name = self._files.accept(part)
        except (PushError, FileNotFoundError) as error:
            if not self._exists(tokens):
                return  # deleted meanwhile, with its files
            # It was readable when it was accepted: the disk is damaged, or the file was changed.
            _log.error("run %s step %d cannot be read: %s", tokens.run, tokens.step, error)
            self._unreadable.add(tokens.number)
            return
        finally:
            part.unlink(missing_ok=True)
        try:
            with self._database.write() as connection:
                kept = StepRepository(connection).converted(tokens.number, name, size)
        except Exception:
            self._files.remove([name])
            raise
        self._files.remove(tokens.files if kept else [*tokens.files, name])

    def _exists(self, tokens: StepTokens) -> bool:
        with self._database.read() as connection:
            return StepRepository(connection).exists(tokens.number)

    def _parts(self, tokens: StepTokens) -> list[StepPart]:
        return [
            StepPart(self._files.path(raw["file"]), cast(StepFormat, raw["format"]))
            for raw in tokens.raw_files or ()
        ]
