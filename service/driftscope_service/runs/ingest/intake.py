"""What every upload needs, put together once per service."""

from __future__ import annotations

from dataclasses import dataclass

from driftscope_service.ingest.analysis_pool import AnalysisPool
from driftscope_service.ingest.step_locks import StepLocks
from driftscope_service.ingest.token_keeper import TokenKeeper
from driftscope_service.ingest.upload_slot import UploadSlots
from driftscope_service.settings import Settings
from driftscope_service.store.database import Database
from driftscope_service.store.shard_repository import ShardRepository
from driftscope_service.store.step_files import StepFiles
from driftscope_service.store.step_repository import StepRepository


@dataclass(frozen=True, slots=True)
class Intake:
    database: Database
    files: StepFiles
    pool: AnalysisPool
    locks: StepLocks
    slots: UploadSlots
    keeper: TokenKeeper

    def sweep(self) -> None:
        """Remove what a killed service left on disk. Before anything is received."""
        with self.database.read() as connection:
            kept = StepRepository(connection).kept()
            files = ShardRepository(connection).files()
        files += [file for tokens in kept for file in tokens.files]
        self.files.sweep(files)

    def start(self) -> None:
        self.keeper.start()

    def stop(self) -> None:
        """May be called twice."""
        self.keeper.stop()
        self.pool.stop()


def build_intake(settings: Settings, database: Database) -> Intake:
    """Touches neither disk nor database, and starts nothing."""
    files = StepFiles(settings.data_dir)
    return Intake(
        database=database,
        files=files,
        pool=AnalysisPool(settings.analysis_processes),
        locks=StepLocks(),
        slots=UploadSlots(
            settings.data_dir, settings.max_concurrent_uploads, settings.min_free_disk_bytes
        ),
        keeper=TokenKeeper(
            database,
            files,
            ring_steps=settings.token_ring_steps,
            budget_bytes=settings.token_budget_bytes,
            open_step_s=settings.open_step_seconds,
        ),
    )
