"""What a user names on the command line → steps: a file, a file per side, a folder of steps.

In: paths, and how to read them. Out: one PushedStep, or those of a folder by their numbers. Folders
are prime-rl's (src/prime_rl/trainer/rl/token_export.py: token_exports/step_N/rank_R.jsonl) and
NeMo-RL's log folder (nemo_rl/algorithms/grpo.py: train_data_stepN.jsonl). A file may be packed with
gzip or zstd.
"""

from __future__ import annotations

import gzip
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final

from driftscope_probes.push.column_names import AS_THEY_ARE, ColumnNames
from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.push.readers.base import StepFormat
from driftscope_probes.push.readers.looks import described, looks_of, suggested
from driftscope_probes.push.readers.two_files import joined_sides, names_of_side
from driftscope_probes.push.rules import MAX_FILE_BYTES, PushError, UnknownColumns
from driftscope_probes.push.step_file import join_steps, read_step

RANK: Final = re.compile(r"rank_?(\d{1,9})\.jsonl(\.gz|\.zst)?")
STEP_FOLDER: Final = re.compile(r"step_?(\d{1,9})")
STEP_FILE: Final = re.compile(r"train_data_step_?(\d{1,9})\.jsonl(\.gz|\.zst)?")
#: A run has thousands of steps, a step hundreds of ranks; a folder with more is another folder.
MAX_ENTRIES: Final = 100_000
PIECE_BYTES: Final = 2**20
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class StepSource:
    files: tuple[Path, ...]  # of one step: its shards
    trainer: Path | None = None  # the trainer's side, where it is in a file of its own
    columns: ColumnNames = AS_THEY_ARE
    step_format: StepFormat | None = None
    step: int | None = None  # as the folder counts it


def sources_of(path: Path, like: StepSource) -> list[StepSource]:
    """One of a file; of a folder one per step, in their order. `like`: how to read them."""
    if not path.is_dir():
        return [replace(like, files=(path,))]
    if like.trainer is not None:
        raise PushError(
            f"{path} is a folder, and --trainer names one file.",
            remedy="give one file for each side.",
        )
    found = _steps_of(path)
    if not found:
        raise PushError(
            f"{path} is a folder without a step in it: neither step_N/rank_R.jsonl and "
            "rank_R.jsonl (prime-rl's token_exports) nor train_data_stepN.jsonl (NeMo-RL).",
            remedy="give such a folder, or one file of a step.",
        )
    return [replace(like, files=files, step=step) for step, files in sorted(found.items())]


def read_source(source: StepSource) -> PushedStep:
    """Raises PushError, which names the file."""
    steps = [_read(file, source) for file in source.files]
    try:
        step = join_steps(steps)
    except PushError as error:
        raise PushError(
            f"{source.files[0].parent}: {error.message}", remedy=error.remedy
        ) from error
    if source.trainer is None:
        return step
    columns = names_of_side(source.columns, "trainer")
    trainer = _read(
        source.trainer, replace(source, columns=columns, step_format=None, trainer=None)
    )
    return joined_sides(step, trainer, source.trainer)


def _read(path: Path, source: StepSource) -> PushedStep:
    columns = source.columns
    if source.trainer is not None:
        columns = names_of_side(columns, "rollout")
    try:
        with unpacked(path) as file:
            try:
                return read_step(file, source.step_format, columns)
            except UnknownColumns as error:
                raise _with_looks(error, file) from error
    except PushError as error:
        raise PushError(f"{path}: {error.message}", remedy=error.remedy) from error


def _with_looks(error: PushError, file: Path) -> PushError:
    looks = looks_of(file)
    held, option = described(looks), suggested(looks)
    remedy = error.remedy if option is None else f"{error.remedy}\nBy their names: {option}"
    return PushError(f"{error.message}\n{held}" if held else error.message, remedy=remedy)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The file, or what is in it: in a folder of its own, gone when it is read."""
    head = b""
    if path.is_file():
        with path.open("rb") as stream:
            head = stream.read(len(ZSTD))
    if not head.startswith((GZIP, ZSTD)) or path.suffix not in (".gz", ".zst", ".gzip", ".zstd"):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="driftscope-unpacked-") as folder:
        target = Path(folder) / path.stem
        try:
            with _reader(path, head) as packed, target.open("wb") as stream:
                _copy(packed, stream)
        except (OSError, EOFError, zlib.error) as error:
            raise PushError(
                f"it cannot be unpacked: {error}.", remedy="pack it again, and send it whole."
            ) from error
        yield target


def _reader(path: Path, head: bytes) -> Any:
    if head.startswith(GZIP):
        return gzip.open(path, "rb")
    import zstandard

    return zstandard.open(path, "rb")


def _copy(packed: IO[bytes], stream: IO[bytes]) -> None:
    size = 0
    while piece := packed.read(PIECE_BYTES):
        size += len(piece)
        if size > MAX_FILE_BYTES:
            raise PushError(
                f"it unpacks to more than {MAX_FILE_BYTES:,} bytes.",
                remedy="give each data-parallel rank's share as a file of its own.",
            )
        stream.write(piece)


def _steps_of(folder: Path) -> dict[int | None, tuple[Path, ...]]:
    """By the number of the step; None: the folder is that of one step and does not say which."""
    names = _entries(folder)
    if ranks := _ranks(names):
        named = STEP_FOLDER.fullmatch(folder.resolve().name)
        return {int(named.group(1)) if named else None: ranks}
    found: dict[int | None, tuple[Path, ...]] = {}
    for entry in names:
        if (named := STEP_FOLDER.fullmatch(entry.name)) and entry.is_dir():
            if ranks := _ranks(_entries(entry)):
                found[int(named.group(1))] = ranks
        elif named := STEP_FILE.fullmatch(entry.name):
            found[int(named.group(1))] = (entry,)
    inner = folder / "token_exports"
    return found if found or not inner.is_dir() else _steps_of(inner)


def _ranks(entries: list[Path]) -> tuple[Path, ...]:
    named = [(int(m.group(1)), one) for one in entries if (m := RANK.fullmatch(one.name))]
    return tuple(one for _, one in sorted(named))


def _entries(folder: Path) -> list[Path]:
    found: list[Path] = []
    try:
        for entry in folder.iterdir():
            found.append(entry)
            if len(found) > MAX_ENTRIES:
                raise PushError(
                    f"{folder} has more than {MAX_ENTRIES:,} entries.",
                    remedy="give the folder of one step.",
                )
    except OSError as error:
        raise PushError(
            f"{folder} cannot be read: {error.strerror}.", remedy="check its permissions."
        ) from error
    return sorted(found)
