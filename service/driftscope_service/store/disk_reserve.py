"""A few megabytes of the data folder's disk that are given back when it is full.

SQLite needs some room to open a database even for reading (the index of its write-ahead log), so
that a service on a full disk would not start at all. With the reserve it starts, shows what it has,
says in /readyz that the disk is full and refuses uploads.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Final

NAME: Final = "disk-reserve"
#: SQLite's index takes 32 KiB and a small transaction a few pages; the rest is for logs.
RESERVE_BYTES: Final = 4 * 2**20
#: Taken only where it is no matter; and by nobody who tests with a tiny disk.
TAKEN_WITH_FREE_BYTES: Final = 8 * RESERVE_BYTES
_log = logging.getLogger("driftscope")


def release_if_full(data_dir: Path) -> None:
    """Before anything is opened. Does nothing where there is room, or no reserve."""
    try:
        if shutil.disk_usage(data_dir).free >= RESERVE_BYTES:
            return
        (data_dir / NAME).unlink()
    except FileNotFoundError:
        return  # a new folder, or released earlier
    except OSError as error:
        _log.error("%s in %s cannot be given back: %s", NAME, data_dir, error)
        return
    _log.warning("the disk of %s is full: %d bytes in reserve given back", data_dir, RESERVE_BYTES)


def take(data_dir: Path) -> None:
    """Once the service has started. Without a reserve it runs as well."""
    path = data_dir / NAME
    try:
        if path.exists() or shutil.disk_usage(data_dir).free < TAKEN_WITH_FREE_BYTES:
            return
        with path.open("xb") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
    except OSError as error:
        path.unlink(missing_ok=True)
        _log.warning("no room is kept in reserve in %s: %s", data_dir, error)
