"""Files that a killed process or a lost power supply leaves whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

#: A killed process leaves a file of this suffix; no other name is ever that of half a file.
PARTIAL = ".partial"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Under another name first: whoever reads sees the old file or the new one.

    On the disk behind the block; an error in it leaves no partial file.
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
    """A file or folder gets its name, and that survives power loss."""
    partial.rename(target)
    sync(target.parent)


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """One line of JSON at the end, on the disk when this returns."""
    line = json.dumps(value, allow_nan=False, ensure_ascii=False) + "\n"
    with path.open("a+b") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            # Half a line of a process that was killed: it stays one line that cannot be read.
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write(line.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """To the disk; a new name is there only when its folder is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
