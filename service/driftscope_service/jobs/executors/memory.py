"""What the processes of a job take of the memory, and whether the kernel ran out of it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

GIB: Final = 2**30
#: Counts since the boot of the machine; also those in a container with a limit of its own.
VMSTAT: Final = Path("/proc/vmstat")
_KILLS: Final = "oom_kill "


def group_bytes(leader: int) -> int:
    """Resident memory of every process of the leader's session. Pages that two of them share count
    twice: a limit is met early rather than late."""
    held = 0
    for pid in psutil.pids():
        # It may end at any moment.
        with suppress(ProcessLookupError, psutil.NoSuchProcess, psutil.AccessDenied):
            if os.getsid(pid) == leader:
                held += psutil.Process(pid).memory_info().rss
    return held


def out_of_memory_kills() -> int:
    """How many processes the kernel has killed for memory; 0 where it does not say."""
    try:
        lines = VMSTAT.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(_KILLS)), 0)
