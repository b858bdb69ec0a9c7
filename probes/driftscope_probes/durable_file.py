"""Files that survive a killed process or power loss whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

#: A killed process leaves a file with this suffix; a file under any other name is complete.
PARTIAL = ".partial"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Written under another name first: readers see the old file or the new one.

    Durable when the block ends; an error in it leaves no partial file.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode("utf-8"))


def publish(partial: Path, target: Path) -> None:
    """Give a file or folder its name; the rename survives power loss."""
    partial.rename(target)
    sync(target.parent)


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one line of JSON; durable when this returns."""
    line = json.dumps(value, allow_nan=False, ensure_ascii=False) + "\n"
    with path.open("a+b") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            # Half a line left by a killed process: end it, so that only that line is unreadable.
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write(line.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """fsync; a new name is durable only once its folder is synced too."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
