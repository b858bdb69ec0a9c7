"""Removes jobs, reports and nights that have been kept long enough, as the settings say.

One instance at a time, once an hour; what it removed is one entry of the audit log.
"""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy.exc import OperationalError

from driftscope_service.auth.audit import SERVICE, Action, AuditLog
from driftscope_service.experiments.store import ReportFiles
from driftscope_service.jobs.job import JobFolder
from driftscope_service.settings import Settings
from driftscope_service.store.database import Database
from driftscope_service.store.leases import once_every
from driftscope_service.store.retention import Expired, Kept, expire

RETENTION_LEASE: Final = "retention"
#: Settings are in days.
EVERY_S: Final = 3600.0
_log = logging.getLogger("driftscope")


def kept_of(settings: Settings) -> Kept:
    return Kept(
        job_days=settings.keep_job_days,
        report_days=settings.keep_report_days,
        reports=settings.keep_reports,
        night_days=settings.keep_night_days,
        nights=settings.keep_nights,
    )


class Retention:
    def __init__(
        self, database: Database, files: ReportFiles, data_dir: Path, instance: str, kept: Kept
    ) -> None:
        self._database = database
        self._files = files
        self._data_dir = data_dir
        self._instance = instance
        self._kept = kept
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="retention", daemon=True)

    def start(self) -> None:
        if not self._kept.everything:
            self._thread.start()

    def stop(self) -> None:
        """May be called twice."""
        self._stopping.set()
        if self._thread.ident is not None:  # it was started
            self._thread.join()

    def apply(self) -> int:
        """Rows removed, of jobs; none where another instance did this within the hour."""
        if not once_every(self._database, RETENTION_LEASE, self._instance, EVERY_S):
            return 0
        removed = 0
        while not self._stopping.is_set():
            gone = self._expire()
            removed += len(gone.jobs)
            if not gone.jobs:
                break
        return removed

    def _expire(self) -> Expired:
        with self._database.write() as connection:
            gone = expire(connection, self._kept, datetime.now(UTC))
            if gone.jobs:
                AuditLog(connection).add(
                    SERVICE,
                    Action.RETENTION,
                    "reports, nights and jobs",
                    reports=len(gone.reports) - gone.nights,
                    nights=gone.nights,
                    jobs=len(gone.jobs) - len(gone.reports),
                )
        # Only now: the transaction might have failed, and the rows would name what is gone.
        for report_id in gone.reports:
            self._files.discard(report_id)
        for job_id in gone.jobs:
            JobFolder(self._data_dir, job_id).remove()
        return gone

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                self.apply()
            except (OperationalError, OSError) as error:
                _log.error("nothing is removed by age now: %s", error)
            except Exception:
                # A thread that ends would let reports fill the disk.
                _log.exception("retention failed")
            self._stopping.wait(EVERY_S)
