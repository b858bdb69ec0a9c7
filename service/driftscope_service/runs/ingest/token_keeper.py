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
from driftscope_service.store.database import CommitUnknown, Database
from driftscope_service.store.leases import Turn
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


#: An accepted step is announced at once; this is for a busy database, for open steps, and for steps
#: that another process of the service accepted.
IDLE_POLL_S = 15.0
#: Longer than a conversion takes, before each of which it is renewed: a step of fifty million
#: tokens takes ten seconds.
LEASE_S = 60.0
LEASE = "tokens"
_log = logging.getLogger("driftscope")


class TokenKeeper:
    def __init__(
        self,
        database: Database,
        files: StepFiles,
        storage: Storage,
        *,
        ring_steps: int,
        budget_bytes: int,
        open_step_s: float,
        instance: str,
    ) -> None:
        """instance: whose it is; one at a time puts the tokens of a database in order."""
        self._database = database
        self._turn = Turn(database, LEASE, instance, LEASE_S)
        self._files = files
        self._storage = storage
        self._instance = instance
        self._sweep_at = -math.inf
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
            self._announced.wait(IDLE_POLL_S)
            self._announced.clear()
            try:
                self._tidy()
            except (OperationalError, OSError) as error:
                _log.error("tokens cannot be put in order, and wait: %s", error)
            except Exception:
                # A thread that ends would let raw uploads fill the disk.
                _log.exception("the token keeper failed")
        self._turn.release()

    def _tidy(self) -> None:
        if not self._turn.taken():
            return
        self._abandon_open_steps()
        while not self._stopping.is_set() and self._turn.taken():
            kept = self._drop(self._kept())
            waiting = [
                tokens
                for tokens in kept
                if tokens.raw_files is not None and tokens.number not in self._unreadable
            ]
            if not waiting:
                self._sweep()
                return
            self._convert(waiting[0])

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
                if not self._turn.still_mine(connection):
                    return []  # whoever has it decides anew
                StepRepository(connection).dropped(tokens.number)
            self._files.remove(tokens.files)
        return list(of.values())

    def _convert(self, tokens: StepTokens) -> None:
        part = self._files.new_tokens_part()
        try:
            size = write_tokens(part, whole_step(self._parts(tokens)))
            name = self._files.accept(part)
        except (PushError, FileNotFoundError) as error:
            if not self._waits(tokens):
                return  # deleted or converted meanwhile, and its files with that
            # It was readable when it was accepted: the disk is damaged, or the file was changed.
            _log.error("run %s step %d cannot be read: %s", tokens.run, tokens.step, error)
            self._unreadable.add(tokens.number)
            return
        finally:
            part.unlink(missing_ok=True)
        try:
            with self._database.write() as connection:
                mine = self._turn.still_mine(connection)
                kept = mine and StepRepository(connection).converted(tokens.number, name, size)
        except CommitUnknown:
            raise  # if it did commit, the row names the new file
        except Exception:
            self._files.remove([name])
            raise
        if not mine:
            self._files.remove([name])  # what it was made of is another one's now
            return
        self._files.remove(tokens.files if kept else [*tokens.files, name])

    def _waits(self, tokens: StepTokens) -> bool:
        """Whether it is there, and not converted by another process of the service."""
        with self._database.read() as connection:
            return StepRepository(connection).exists(tokens.number) and self._turn.still_mine(
                connection
            )

    def _parts(self, tokens: StepTokens) -> list[StepPart]:
        return [
            StepPart(self._files.path(raw["file"]), cast(StepFormat, raw["format"]))
            for raw in tokens.raw_files or ()
        ]
