"""A short value that changes when a model folder's content does, without reading all of it.

In: a folder. Out: "sampled-sha256:…" for a folder from elsewhere. A folder of our own making has
every file's sha256 in its manifest, and with it a fingerprint of the whole content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

# Files that engine and trainer read, weights apart.
TEXT_SUFFIXES = (".json", ".jinja", ".model", ".txt")
# 64 blocks of 64 KiB, spread evenly: 4 MiB a file, a few milliseconds. A training step changes
# nearly every weight, so one block would do; a hand-edited tensor between blocks goes unseen.
BLOCKS = 64
BLOCK_BYTES = 64 * 1024


def sampled_fingerprint(folder: Path, weights: tuple[Path, ...]) -> str:
    """Over names, sizes and sampled content. The files' location and times do not count."""
    texts = {path for path in folder.iterdir() if path.name.endswith(TEXT_SUFFIXES)}
    digest = hashlib.sha256()
    for path in sorted(texts | set(weights)):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        for block in _blocks(path, size):
            digest.update(block)
    return "sampled-sha256:" + digest.hexdigest()


def _blocks(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as stream:
        if size <= BLOCKS * BLOCK_BYTES:
            yield stream.read(size)
            return
        for index in range(BLOCKS):
            # The first block starts at 0 and the last one ends at the end of the file.
            stream.seek(index * (size - BLOCK_BYTES) // (BLOCKS - 1))
            yield stream.read(BLOCK_BYTES)
