"""Where models are stored, and how one is built there: once, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from driftscope_probes.durable_file import publish, sync
from driftscope_probes.errors import ModelError
from driftscope_probes.models import manifest
from driftscope_probes.progress import Progress, ProgressSink

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
) -> manifest.Manifest:
    """Manifest of `target`, which `build` fills if it is absent, damaged, of another recipe, or
    `force` is set. Raises ModelError if the folder cannot be written."""
    present = manifest.read_intact(target, recipe)
    if present is not None and not force:
        return present
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target, progress):
            present = manifest.read_intact(target, recipe)
            if present is not None and not force:
                return present
            return _build(target, recipe, build, progress)
    except OSError as error:
        raise ModelError(
            f"{target.name} could not be stored under {target.parent}: {error}.",
            remedy=f"Free space or make the folder writable, or set {HOME_VARIABLE} elsewhere.",
        ) from error


def _build(target: Path, recipe: str, build: Build, progress: ProgressSink) -> manifest.Manifest:
    for kind in ("building", "replaced"):
        for leftover in target.parent.glob(f".{target.name}.{kind}-*"):
            _remove(leftover)
    # Next to the target, since a rename is atomic only within one file system.
    workplace = target.parent / f".{target.name}.building-{os.getpid()}"
    workplace.mkdir()
    try:
        build(workplace, progress)
        progress(Progress("checking and storing", 0.95))
        made = manifest.write(workplace, recipe)
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
