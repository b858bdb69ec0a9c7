"""The cache of built models, with a manifest of what each was built from."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from driftscope_probes.durable_file import publish, sync
from driftscope_probes.errors import ModelError
from driftscope_probes.models.json_file import read_json, write_json
from driftscope_probes.progress import Progress, ProgressSink

MANIFEST_NAME = "manifest.json"
MANIFEST_LIMIT = 1024**2


@dataclass(frozen=True, slots=True)
class Manifest:
    """`files` maps a file name to its size in bytes and its sha256."""

    recipe: str
    files: dict[str, tuple[int, str]]

    @property
    def fingerprint(self) -> str:
        """sha256 over the sorted names and sha256 values of all files."""
        lines = (f"{name} {sha256}\n" for name, (_, sha256) in sorted(self.files.items()))
        return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def write(folder: Path, recipe: str) -> Manifest:
    """Hashes every file in `folder` and writes the manifest there."""
    paths = sorted(path for path in folder.iterdir() if path.name != MANIFEST_NAME)
    files = {path.name: (path.stat().st_size, file_sha256(path)) for path in paths}
    entries = {name: {"size": size, "sha256": sha256} for name, (size, sha256) in files.items()}
    write_json(folder / MANIFEST_NAME, {"recipe": recipe, "files": entries})
    return Manifest(recipe, files)


def read_intact(folder: Path, recipe: str) -> Manifest | None:
    """The manifest, if `folder` was made by `recipe` and each file has its size; else None.

    Hashes are not recomputed: on use that would cost more than loading the model.
    """
    try:
        fields = read_json(folder / MANIFEST_NAME, MANIFEST_LIMIT)
        manifest = _parse(fields)
        sizes = {name: (folder / name).stat().st_size for name in manifest.files}
    # Whatever is wrong with a folder that we built, the remedy is to build it again.
    except (OSError, ModelError, KeyError, TypeError, AttributeError):
        return None
    same_sizes = all(sizes[name] == size for name, (size, _) in manifest.files.items())
    return manifest if manifest.recipe == recipe and manifest.files and same_sizes else None


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _parse(fields: dict[str, Any]) -> Manifest:
    entries = fields["files"].items()
    files = {name: (int(entry["size"]), str(entry["sha256"])) for name, entry in entries}
    return Manifest(str(fields["recipe"]), files)


HOME_VARIABLE = "DRIFTSCOPE_HOME"


def home() -> Path:
    """`$DRIFTSCOPE_HOME`, else `~/.cache/driftscope`."""
    given = os.environ.get(HOME_VARIABLE)
    folder = Path(given).expanduser() if given else Path.home() / ".cache" / "driftscope"
    return folder.absolute()


def models_dir() -> Path:
    """The folder with one folder per built model."""
    return home() / "models"


Build = Callable[[Path, ProgressSink], None]


def build_once(
    target: Path, recipe: str, build: Build, *, force: bool, progress: ProgressSink
) -> Manifest:
    """Manifest of `target`, which `build` fills if it is absent, damaged, of another recipe, or
    `force` is set. Raises ModelError if the folder cannot be written."""
    present = read_intact(target, recipe)
    if present is not None and not force:
        return present
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target, progress):
            present = read_intact(target, recipe)
            if present is not None and not force:
                return present
            return _build(target, recipe, build, progress)
    except OSError as error:
        raise ModelError(
            f"{target.name} could not be stored under {target.parent}: {error}.",
            remedy=f"Free space or make the folder writable, or set {HOME_VARIABLE} elsewhere.",
        ) from error


def _build(target: Path, recipe: str, build: Build, progress: ProgressSink) -> Manifest:
    for kind in ("building", "replaced"):
        for leftover in target.parent.glob(f".{target.name}.{kind}-*"):
            _remove(leftover)
    # Next to the target, since a rename is atomic only within one file system.
    workplace = target.parent / f".{target.name}.building-{os.getpid()}"
    workplace.mkdir()
    try:
        build(workplace, progress)
        progress(Progress("checking and storing", 0.95))
        made = write(workplace, recipe)
        for path in workplace.iterdir():
            sync(path)
        sync(workplace)
        _publish(workplace, target)
    finally:
        _remove(workplace)
    progress(Progress("done", 1.0))
    return made


def _publish(workplace: Path, target: Path) -> None:
    replaced = target.parent / f".{target.name}.replaced-{os.getpid()}"
    # A non-empty folder cannot be renamed over: the target is absent for an instant, never partial.
    if os.path.lexists(target):
        target.rename(replaced)
    publish(workplace, target)
    _remove(replaced)


@contextmanager
def _locked(target: Path, progress: ProgressSink) -> Iterator[None]:
    """Holds the build lock; the system frees it when its owner dies."""
    lock = FileLock(target.parent / f".{target.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(Progress("waiting for another process that builds the same model", 0.0))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
