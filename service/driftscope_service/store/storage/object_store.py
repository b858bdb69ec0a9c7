"""A storage in a bucket of an S3-compatible server, through fsspec.

Endpoint, region and credentials come from the usual AWS_* variables or fsspec's own configuration.
Readers that need a local file get one from a cache of bounded size in the data folder.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import fsspec

from driftscope_probes.errors import ProbeError
from driftscope_service.store.storage.base import StorageUnavailable, StoredFile, checked

#: A few of the largest steps that are accepted; the rest is read from the bucket again.
CACHE_BYTES: Final = 4 * 2**30
#: Whoever was handed a path opens it at once, but may be slow to do so.
IN_USE_S: Final = 60.0
#: Deleted by one request; S3 takes a thousand.
_BATCH: Final = 1000


class StorageSettingError(ProbeError):
    """DRIFTSCOPE_STORAGE_URL names a storage that cannot be used."""


class ObjectStorage:
    def __init__(self, url: str, cache: Path, *, cache_bytes: int = CACHE_BYTES) -> None:
        """Connects to nothing yet."""
        parts = urlsplit(url)
        self._root = f"{parts.netloc}{parts.path}".rstrip("/")
        self._url = f"{parts.scheme}://{self._root}"
        self._scheme = parts.scheme
        self._cache = _Cache(cache, cache_bytes)
        self._lock = threading.Lock()
        self._opened: Any = None

    def __str__(self) -> str:
        return self._url

    def put(self, name: str, source: Path) -> None:
        """The server answers once it is durable there, and shows nothing before."""
        with self._errors(name):
            self._system.put_file(str(source), self._key(name))
        self._cache.take(name, source)  # it will be read soon: converted, or shown

    def path(self, name: str) -> Path:
        found = self._cache.find(name)
        if found is not None:
            return found

        def fetch(to: Path) -> None:
            with self._errors(name):
                self._system.get_file(self._key(name), str(to))

        return self._cache.fill(name, fetch)

    def read(self, name: str) -> bytes:
        with self._errors(name):
            content: bytes = self._system.cat_file(self._key(name))
            return content

    def write(self, name: str, content: bytes) -> None:
        with self._errors(name):
            self._system.pipe_file(self._key(name), content)

    def size(self, name: str) -> int | None:
        try:
            with self._errors(name):
                return int(self._system.info(self._key(name), refresh=True)["size"])
        except FileNotFoundError:
            return None

    def remove(self, names: Iterable[str]) -> None:
        given = list(names)
        for start in range(0, len(given), _BATCH):
            batch = given[start : start + _BATCH]
            for name in batch:
                self._cache.drop(name)
            with suppress(FileNotFoundError), self._errors(batch[0]):
                self._system.rm([self._key(name) for name in batch])

    def files(self, folder: str) -> Iterator[StoredFile]:
        with self._errors(folder):
            self._system.invalidate_cache()
            found = self._system.find(self._key(folder), detail=True)
        for key, facts in found.items():
            name = key.removeprefix(f"{self._root}/")
            modified = facts.get("LastModified") or datetime.now(UTC)
            yield StoredFile(name, int(facts["size"]), modified)

    @property
    def _system(self) -> Any:
        with self._lock:
            if self._opened is None:
                # One for this storage: a shared one may have been made with other variables.
                self._opened = fsspec.filesystem(
                    self._scheme, skip_instance_cache=True, use_listings_cache=False
                )
            return self._opened

    def _key(self, name: str) -> str:
        return f"{self._root}/{checked(name)}"

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "not in the storage", name) from None
        except _failures() as error:
            raise StorageUnavailable(
                errno.EIO, f"{self} does not answer as it should: {error}"
            ) from error


def _failures() -> tuple[type[Exception], ...]:
    """What a server that is gone, slow or refuses raises here."""
    from botocore.exceptions import BotoCoreError, ClientError

    return (OSError, BotoCoreError, ClientError)


def require_installed() -> None:
    if importlib.util.find_spec("s3fs") is None:
        raise StorageSettingError(
            "DRIFTSCOPE_STORAGE_URL names a bucket, and s3fs is not installed.",
            remedy="install driftscope[s3], or unset it to keep the files in the data folder.",
        )


class _Cache:
    """Files by name; those that were not read for longest go first."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()

    def find(self, name: str) -> Path | None:
        path = self._place(name)
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def fill(self, name: str, fetch: Any) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._place(name)
        partial = path.with_name(f"{path.name}.{threading.get_ident()}.partial")
        try:
            fetch(partial)
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
        self._shrink()
        return path

    def take(self, name: str, source: Path) -> None:
        """A cache that cannot be written to is no reason to refuse what is stored already."""
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            source.rename(self._place(name))
            self._shrink()
        source.unlink(missing_ok=True)

    def drop(self, name: str) -> None:
        self._place(name).unlink(missing_ok=True)

    def _place(self, name: str) -> Path:
        return self._folder / checked(name).replace("/", "+")

    def _shrink(self) -> None:
        with self._lock:
            kept = []
            for path in self._folder.iterdir():
                with suppress(FileNotFoundError):
                    found = path.stat()
                    kept.append((found.st_mtime, found.st_size, path))
            total = sum(size for _, size, _ in kept)
            idle_since = time.time() - IN_USE_S
            for used_at, size, path in sorted(kept):
                if total <= self._limit_bytes or used_at > idle_since:
                    return
                path.unlink(missing_ok=True)
                total -= size
