"""A storage in a folder: that of the service, or one that several machines mount."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from driftscope_probes.durable_file import sync, whole_file
from driftscope_service.store.storage.base import REPORTS, StoredFile, checked


class LocalStorage:
    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    def put(self, name: str, source: Path) -> None:
        target = self._target(name)
        _make_folder(target.parent)
        sync(source)
        try:
            self._move(source, target)
            sync(target.parent)
        except BaseException:
            # Half of it is worse than nothing: nobody would know the name.
            with suppress(OSError):
                target.unlink(missing_ok=True)
            raise

    def path(self, name: str) -> Path:
        path = self._target(name)
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "not in the storage", name)
        return path

    def read(self, name: str) -> bytes:
        return self._target(name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        target = self._target(name)
        _make_folder(target.parent)
        with whole_file(target) as file:
            file.write(content)

    def size(self, name: str) -> int | None:
        try:
            return self._target(name).stat().st_size
        except FileNotFoundError:
            return None

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            target = self._target(name)
            target.unlink(missing_ok=True)
            if name.startswith(f"{REPORTS}/"):
                self._remove_empty(target.parent)

    def files(self, folder: str) -> Iterator[StoredFile]:
        # A folder of somebody else's that may not be read is passed over.
        for path, _, names in os.walk(self._root / folder):
            for name in names:
                full = Path(path, name)
                try:
                    found = full.lstat()
                except OSError:
                    continue  # removed meanwhile, or unreadable
                yield StoredFile(
                    full.relative_to(self._root).as_posix(),
                    found.st_size,
                    datetime.fromtimestamp(found.st_mtime, UTC),
                )

    def _target(self, name: str) -> Path:
        return self._root / checked(name)

    def _move(self, source: Path, target: Path) -> None:
        try:
            source.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with source.open("rb") as read, whole_file(target) as written:
                shutil.copyfileobj(read, written)
            source.unlink()

    def _remove_empty(self, folder: Path) -> None:
        """A report's folders go with its last file."""
        while folder.parent != self._root:
            try:
                folder.rmdir()
            except OSError:
                return  # it holds another file, or is gone
            folder = folder.parent


def _make_folder(folder: Path) -> None:
    """The names of new folders are durable too, or a durable file would be in none."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for made in reversed(missing):
        made.mkdir(exist_ok=True)
        sync(made.parent)
