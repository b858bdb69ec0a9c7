"""Which files of a folder of dumps may be read: regular ones, of bounded number and size.

In: a folder that somebody else filled. Out: its files. A link, a device or a name that leads out of
the folder is refused: a dump is data from elsewhere.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any, Final

from driftscope_probes.errors import RequestError

#: A 60-layer model captured for 64 forward passes by msprobe: some 20 files per layer and pass.
MAX_FILES: Final = 100_000
#: Of one tensor: float32 logits of 8192 tokens over 262,144 entries.
MAX_TENSOR_BYTES: Final = 8 * 2**30
MAX_TOTAL_BYTES: Final = 512 * 2**30
#: msprobe's dump.json has about 1 kB per tensor: 100,000 tensors.
MAX_JSON_BYTES: Final = 128 * 2**20
#: Folders below the one named: step, rank, dump_tensor_data.
MAX_DEPTH: Final = 4


def files_of(folder: Path) -> list[Path]:
    """Every file below the folder, by name. Raises RequestError."""
    if not folder.is_dir():
        raise RequestError(
            f"{folder} is not a folder.",
            remedy="give two folders of captured tensors; docs/capture.md says how to write one.",
        )
    found: list[Path] = []
    total = _collect(folder, found, 0)
    if total > MAX_TOTAL_BYTES:
        raise RequestError(
            f"{folder} holds {total / 2**30:.0f} GiB; at most {MAX_TOTAL_BYTES / 2**30:.0f} GiB "
            "are read.",
            remedy="capture fewer tokens or layers: a few sequences show every op.",
        )
    return sorted(found)


def _collect(folder: Path, found: list[Path], depth: int) -> int:
    if depth > MAX_DEPTH:
        raise RequestError(
            f"{folder} is more than {MAX_DEPTH} folders deep.",
            remedy="give the folder that holds the tensors themselves.",
        )
    total = 0
    for path in folder.iterdir():
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            total += _collect(path, found, depth + 1)
            continue
        if not stat.S_ISREG(status.st_mode):
            raise RequestError(
                f"{path} is a link or a device, not a file.",
                remedy="copy the files themselves into the folder (cp -L).",
            )
        total += status.st_size
        found.append(path)
        if len(found) > MAX_FILES:
            raise RequestError(
                f"{folder} holds more than {MAX_FILES:,} files.",
                remedy="give the folder of one rank and a few steps.",
            )
    return total


def one_rank(folder: Path, mark: str) -> Path:
    """The folder that holds files of one rank: this one, or the one `rank*` below it.

    `mark`: pattern of a file that such a folder holds. Raises RequestError where there are several.
    """
    if any(folder.glob(mark)):
        return folder
    below = sorted(path for path in folder.iterdir() if path.is_dir() and any(path.glob(mark)))
    if len(below) == 1:
        return below[0]
    if below:
        raise RequestError(
            f"{folder} holds {', '.join(path.name for path in below)}.",
            remedy=f"compare one of them at a time: give {below[0]}.",
        )
    return folder


def json_of(path: Path) -> dict[str, Any]:
    """An object. Raises RequestError."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise RequestError(
            f"{path} has more than {MAX_JSON_BYTES / 2**20:.0f} MiB.",
            remedy="capture fewer modules or steps.",
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f"{path} is not JSON: {error}", remedy="capture it again; the file is damaged."
        ) from error
    if not isinstance(value, dict):
        raise RequestError(
            f"{path} holds no JSON object.", remedy="capture it again; the file is damaged."
        )
    return value


def check_size(name: str, size: int) -> None:
    """Raises RequestError for a tensor of more than MAX_TENSOR_BYTES."""
    if size > MAX_TENSOR_BYTES:
        raise RequestError(
            f"tensor {name} has {size / 2**30:.1f} GiB; at most {MAX_TENSOR_BYTES / 2**30:.0f} GiB "
            "are read.",
            remedy="capture fewer tokens, or leave the logits out.",
        )
