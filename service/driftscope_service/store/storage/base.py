"""The interface to a storage: where the files of steps and reports lie, on disk or in a bucket.

In: a name such as `steps/01J….raw`. Out: a file that is whole and durable, or absent. Files never
change once they are there. What is being received, the folders of jobs and caches are no part of
it: they stay in the data folder of each instance.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

#: Who owns the files, as JSON; see `store/identity.py`.
IDENTITY_NAME: Final = "storage-id.json"
STEPS: Final = "steps"
REPORTS: Final = "reports"
_ULID: Final = "[0-7][0-9A-HJKMNP-TV-Z]{25}"
#: Every name that we ever give; whatever is called otherwise belongs to somebody else.
OURS: Final = re.compile(
    rf"{STEPS}/{_ULID}\.(raw|parquet)(\.partial)?|{REPORTS}/report_{_ULID}(\.partial)?/.+"
)
#: What a full disk, a full quota and a full bucket are called.
FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class StorageUnavailable(OSError):
    """The storage did not answer, or not as it should; another try may help."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    name: str
    size_bytes: int
    modified_at: datetime


class Storage(Protocol):
    """Every method may raise OSError, StorageUnavailable among them."""

    def __str__(self) -> str:
        """Names it in messages, without credentials."""
        ...

    def put(self, name: str, source: Path) -> None:
        """Durable when it returns, and `source` is gone; after an error nothing has the name."""
        ...

    def path(self, name: str) -> Path:
        """A local file with the content, for reading at once. Raises FileNotFoundError."""
        ...

    def read(self, name: str) -> bytes:
        """A small file. Raises FileNotFoundError."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """A small file, durable when it returns; takes the place of one that is there."""
        ...

    def size(self, name: str) -> int | None:
        """In bytes; None where there is no such file."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Those that are not there are no error."""
        ...

    def files(self, folder: str) -> Iterator[StoredFile]:
        """Those below it, in no order; entries that cannot be read are left out."""
        ...


def is_ours(name: str) -> bool:
    return OURS.fullmatch(name) is not None


def our_files(storage: Storage) -> Iterator[StoredFile]:
    """Files of steps and reports under names that we give."""
    for folder in (STEPS, REPORTS):
        yield from (file for file in storage.files(folder) if is_ours(file.name))


def checked(name: str) -> str:
    """No name leaves its storage; they come from our own rows, so that another one is a bug."""
    parts = name.split("/")
    assert name == os.path.normpath(name) and ".." not in parts and parts[0], f"{name!r}"
    return name
