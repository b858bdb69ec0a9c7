"""A model folder: what it holds, checked, and the digest of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from driftscope_probes.errors import ModelError
from driftscope_probes.models.checks import CONFIG_NAME, architecture_of, check_folder

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


Origin = Literal["catalogue", "folder", "hub"]

DTYPES = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}
# How architectures call the longest context: most, GPT-2, MPT.
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model that passed the checks."""

    path: Path
    name: str  # as requested
    origin: Origin
    revision: str | None  # commit of a Hub model, recipe of a catalogue model
    fingerprint: str  # "sha256:…" of the content, "sampled-sha256:…" of parts of it
    architecture: str  # class name in transformers, as in config.json
    dtype: str  # that of most weights on disk: "bf16", "fp16" or "fp32"
    parameters: int
    weight_bytes: int
    vocab_size: int
    max_context: int  # tokens, prompt and response together

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}

    def facts(self, name: str) -> dict[str, Any]:
        """For a report: under the name that was asked for, without the path on this machine."""
        fields = self.to_dict()
        del fields["path"]
        return fields | {"name": name}


def describe(
    path: Path,
    *,
    name: str,
    origin: Origin,
    revision: str | None = None,
    fingerprint: str | None = None,
) -> ModelFolder:
    """Checks the folder at `path` and describes it; without `fingerprint` it samples one."""
    try:
        checked = check_folder(path)
        fingerprint = fingerprint or sampled_fingerprint(path, checked.weights)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error}.",
            remedy="Give this user the right to read the folder and its files.",
        ) from error
    counts: dict[str, int] = {}
    for table in checked.tables:
        for number_format, elements in table.parameters.items():
            counts[number_format] = counts.get(number_format, 0) + elements
    return ModelFolder(
        path=path,
        name=name,
        origin=origin,
        revision=revision,
        fingerprint=fingerprint,
        architecture=architecture_of(checked.config),
        dtype=_main_dtype(path, counts),
        parameters=sum(counts.values()),
        weight_bytes=sum(file.stat().st_size for file in checked.weights),
        vocab_size=_positive(checked.config, path, ("vocab_size",)),
        max_context=_positive(checked.config, path, CONTEXT_KEYS),
    )


def _main_dtype(path: Path, counts: dict[str, int]) -> str:
    most = max(counts, key=lambda number_format: counts[number_format], default="nothing")
    if most not in DTYPES:
        raise ModelError(
            f"The weights in {path} are mostly {most}.",
            remedy=f"Use a checkpoint in {', '.join(DTYPES)}.",
        )
    return DTYPES[most]


def _positive(config: dict[str, Any], path: Path, keys: tuple[str, ...]) -> int:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and value > 0:
            return value
    raise ModelError(
        f"{path / CONFIG_NAME} gives no positive {' or '.join(keys)}.",
        remedy=f"Add {keys[0]} with the model's true value to {CONFIG_NAME}.",
    )
