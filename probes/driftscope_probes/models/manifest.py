"""manifest.json of a built model: the recipe that made it, and what each file must be.

In: a finished folder. Out: the manifest on disk, its quick check, and a fingerprint.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftscope_probes.errors import ModelError
from driftscope_probes.models.json_file import read_json, write_json

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
