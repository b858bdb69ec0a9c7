"""Pushed data on disk: DATA_DIR/incoming/*.part while it arrives, DATA_DIR/steps/ once accepted.

Names are ours and never used twice; which of them count stands in the database. A file comes under
`steps` only whole and on disk.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from ulid import ULID

_PART = ".part"
_log = logging.getLogger("driftscope")


class StepFiles:
    def __init__(self, data_dir: Path) -> None:
        self._incoming = data_dir / "incoming"
        self._steps = data_dir / "steps"

    def new_part(self) -> Path:
        """Where an upload may be written; nothing is there yet."""
        self._incoming.mkdir(exist_ok=True)
        return self._incoming / f"{ULID()}{_PART}"

    def accept(self, part: Path) -> str:
        """Move a part that is on disk to its lasting name, and return that."""
        self._steps.mkdir(exist_ok=True)
        name = f"{part.stem}.raw"
        part.rename(self._steps / name)
        _sync_folder(self._steps)
        return name

    def new_tokens_file(self) -> str:
        return f"{ULID()}.parquet"

    def path(self, name: str) -> Path:
        return self._steps / name

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self.path(name).unlink(missing_ok=True)

    def sweep(self, referenced: Iterable[str]) -> None:
        """Remove what a killed service left: parts, and files that no row names."""
        known = set(referenced)
        left = list(self._incoming.glob("*"))
        left += [path for path in self._steps.glob("*") if path.name not in known]
        for path in left:
            path.unlink()
        if left:
            _log.warning("files of unfinished uploads removed: %d", len(left))


def _sync_folder(folder: Path) -> None:
    """A rename is only durable once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
