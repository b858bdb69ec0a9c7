"""What the intake of steps keeps while the service runs, put together."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from driftscope_probes.floor.store import FOLDER as FLOORS
from driftscope_service.runs.ingest.analysis_pool import AnalysisPool
from driftscope_service.runs.ingest.large_steps.base import LargeSteps
from driftscope_service.runs.ingest.token_keeper import TokenKeeper
from driftscope_service.runs.ingest.upload import UploadSlots
from driftscope_service.runs.store.uploads import StepFiles
from driftscope_service.runs.webhook.body import webhook_of
from driftscope_service.runs.webhook.sender import WebhookSender
from driftscope_service.settings import Settings
from driftscope_service.store.database import Database
from driftscope_service.store.storage.base import Storage

_log = logging.getLogger("driftscope")


class StepLocks:
    """For one event loop. Holds a lock only while it is in use."""

    def __init__(self) -> None:
        self._locks: dict[tuple[str, int], asyncio.Lock] = {}
        self._users: Counter[tuple[str, int]] = Counter()
        self._closed: dict[str, asyncio.Event] = {}  # runs that are held whole

    @asynccontextmanager
    async def hold_run(self, run: str) -> AsyncIterator[None]:
        """Every step of a run: those that are held end first, others wait."""
        while (closed := self._closed.get(run)) is not None:
            await closed.wait()
        opened = self._closed[run] = asyncio.Event()
        try:
            async with AsyncExitStack() as stack:
                # Whoever waits for one of these locks is behind us, or ends before.
                for of, step in [key for key in self._locks if key[0] == run]:
                    await stack.enter_async_context(self._hold(of, step))
                yield
        finally:
            del self._closed[run]
            opened.set()

    @asynccontextmanager
    async def hold(self, run: str, step: int) -> AsyncIterator[None]:
        while (closed := self._closed.get(run)) is not None:
            await closed.wait()
        async with self._hold(run, step):
            yield

    @asynccontextmanager
    async def _hold(self, run: str, step: int) -> AsyncIterator[None]:
        key = (run, step)
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._users[key] += 1
        try:
            async with lock:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]


@dataclass(frozen=True, slots=True)
class Intake:
    database: Database
    files: StepFiles
    floors: Path  # folder of calibrated ones
    pool: AnalysisPool
    large_steps: LargeSteps
    locks: StepLocks
    slots: UploadSlots
    keeper: TokenKeeper
    webhook: WebhookSender

    def sweep(self) -> None:
        """Remove what a killed service left half received, before anything is received."""
        try:
            self.files.sweep_incoming()
        except OSError as error:
            _log.error("files of unfinished uploads cannot be removed: %s", error)

    def start(self) -> None:
        self.keeper.start()
        self.webhook.start()

    def stop(self) -> None:
        """May be called twice."""
        self.webhook.stop()
        self.keeper.stop()
        self.large_steps.stop()
        self.pool.stop()


def build_intake(
    settings: Settings,
    database: Database,
    storage: Storage,
    pool: AnalysisPool,
    large_steps: LargeSteps,
    *,
    instance: str,
) -> Intake:
    """Touches neither disk nor database, and starts nothing. instance: this process."""
    files = StepFiles(settings.data_dir, storage)
    return Intake(
        database=database,
        files=files,
        floors=settings.data_dir / FLOORS,
        pool=pool,
        large_steps=large_steps,
        locks=StepLocks(),
        slots=UploadSlots(
            settings.data_dir, settings.max_concurrent_uploads, settings.min_free_disk_bytes
        ),
        keeper=TokenKeeper(
            database,
            files,
            storage,
            ring_steps=settings.token_ring_steps,
            budget_bytes=settings.token_budget_bytes,
            open_step_s=settings.open_step_seconds,
            instance=instance,
        ),
        webhook=WebhookSender(database, webhook_of(settings), instance),
    )
