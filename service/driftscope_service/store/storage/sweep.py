"""Files that a killed service left in the storage: removed by one instance at a time, by age.

A file is put before its row is written, so that a kill between the two leaves it without one. Gone
are only names that we give, which no row has, and which are older than any upload may last.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Final

from driftscope_service.store.database import Database
from driftscope_service.store.leases import once_every
from driftscope_service.store.storage.base import Storage, our_files
from driftscope_service.store.storage.guarded import backup_runs
from driftscope_service.store.storage.named_files import named_files, report_folder, report_folders

SWEEP_LEASE: Final = "sweep"
#: Rows follow their files within seconds. A day is longer than any upload, and than any two clocks
#: of a storage and an instance that are in use are apart.
SWEEP_AGE: Final = timedelta(days=1)
#: What is swept is a day old; nobody waits for it.
SWEEP_EVERY_S: Final = 3600.0
_log = logging.getLogger("driftscope")


def sweep(database: Database, storage: Storage, owner: str, *, age: timedelta = SWEEP_AGE) -> int:
    """Files removed; 0 where another instance swept within SWEEP_EVERY_S, or a backup runs."""
    if not once_every(database, SWEEP_LEASE, owner, SWEEP_EVERY_S) or backup_runs(database):
        return 0
    before = datetime.now(UTC) - age
    # Listed before the rows are read: what is put meanwhile is in neither list.
    old = [file.name for file in our_files(storage) if file.modified_at < before]
    with database.read() as connection:
        named = {file.name for file in named_files(connection)}
        folders = report_folders(connection)
    left = [name for name in old if name not in named and report_folder(name) not in folders]
    storage.remove(left)
    if left:
        _log.warning("files of unfinished work removed from %s: %d", storage, len(left))
    return len(left)
