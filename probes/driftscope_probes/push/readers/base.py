"""What a reader of a format is, and what it is recognised by: the opening of a file.

In: a path. Out: Opening, which reads its first bytes, one line or an archive's list, as asked for.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from driftscope_probes.push.column_names import AS_THEY_ARE, ColumnNames
from driftscope_probes.push.json_step import parse, parse_object
from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.push.rules import MAX_EXPORT_LINE_BYTES, MAX_HEADER_BYTES, MAX_JSON_BYTES
from driftscope_probes.push.safetensors_step import LENGTH_BYTES

StepFormat = Literal[
    "safetensors",
    "arrow",
    "json",
    "jsonl",
    "prime-rl",
    "nemo-rl",
    "parquet",
    "npz",
    "csv",
    "openai",
    "sglang",
]

#: Magic numbers and the first byte of JSON stand in it.
HEAD_BYTES = 512
ZIP = b"PK\x03\x04"
#: An archive of arrays has a member per tensor; one with more is not looked through.
MAX_MEMBERS = 4096
#: Of the answers of inference servers.
ANSWER_KEYS = (b'"choices"', b'"meta_info"')
TABLE_SUFFIXES = (".csv", ".tsv")
LINE_SUFFIXES = (".jsonl", ".ndjson")


#: Between the cells of a table.
DELIMITERS: Final = (",", "\t", ";")
MAX_TABLE_COLUMNS: Final = 512


def header_of(first_line: str) -> tuple[list[str], str] | None:
    """Names and delimiter; None: it is not a line of a table with two columns or more."""
    best = max(DELIMITERS, key=first_line.count)
    if not first_line.count(best) or not first_line.replace("\t", "").isprintable():
        return None
    cells = [cell.strip() for cell in next(csv.reader([first_line], delimiter=best))]
    return (cells, best) if 2 <= len(cells) <= MAX_TABLE_COLUMNS else None


@dataclass(frozen=True)
class Opening:
    path: Path
    head: bytes  # the first HEAD_BYTES

    @classmethod
    def of(cls, path: Path) -> Opening:
        """Raises OSError."""
        with path.open("rb") as stream:
            return cls(path, stream.read(HEAD_BYTES))

    @property
    def safetensors(self) -> bool:
        """Asked before any magic number, all of which the length of a header can spell: 640 bytes
        begin as a pickle does. As text, the length would be beyond every bound."""
        length = int.from_bytes(self.head[:LENGTH_BYTES], "little")
        return length <= MAX_HEADER_BYTES and self.head[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{"

    @property
    def json(self) -> bool:
        return not self.safetensors and self.head.lstrip()[:1] in (b"{", b"[")

    @cached_property
    def members(self) -> tuple[str, ...]:
        """Names in a zip archive, at most MAX_MEMBERS."""
        if not self.head.startswith(ZIP) or not zipfile.is_zipfile(self.path):
            return ()
        try:
            with zipfile.ZipFile(self.path) as archive:
                return tuple(archive.namelist()[:MAX_MEMBERS])
        except (zipfile.BadZipFile, NotImplementedError, ValueError):
            return ()  # the reader that its name promises says what is wrong

    @cached_property
    def first_line(self) -> Mapping[str, Any] | None:
        """Of a file with a JSON object per line; None: it is not one. PushError: it is not JSON."""
        if self.safetensors or self.head.lstrip()[:1] != b"{":
            return None
        with self.path.open("rb") as stream:
            first = stream.readline(MAX_EXPORT_LINE_BYTES)
            more = stream.read(HEAD_BYTES).lstrip()
        # One object over several lines opens with an unfinished line; behind one on a line nothing
        # follows, and only the name tells.
        several = first.rstrip().endswith(b"}") and more[:1] == b"{"
        by_name = self.path.suffix in LINE_SUFFIXES
        return parse_object(first, "line 1") if several or by_name else None

    @cached_property
    def first_row(self) -> tuple[list[str], str] | None:
        """Cells and delimiter of a table's first row, by the suffix or by a known column in it."""
        if self.safetensors or self.json or b"\x00" in self.head:
            return None
        line = self.head.decode("utf-8-sig", "replace").splitlines()[:1]
        found = header_of(line[0]) if line else None
        named = found is not None and AS_THEY_ARE.knows(found[0])
        return found if named or self.path.suffix in TABLE_SUFFIXES else None

    @cached_property
    def first_answer(self) -> object:
        """The first record of a JSON document or of its lines that a server may have written."""
        if self.first_line is not None:
            return self.first_line
        if not self.json or self.path.stat().st_size > MAX_JSON_BYTES:
            return None
        raw = self.path.read_bytes()
        if not any(key in raw for key in ANSWER_KEYS):  # spares a step the second parsing
            return None
        value = parse(raw, "the document")
        return value[0] if isinstance(value, list) and value else value


@dataclass(frozen=True, slots=True)
class StepReader:
    step_format: StepFormat
    suffixes: tuple[str, ...]
    recognises: Callable[[Opening, ColumnNames], bool]  # by content, whatever the name is
    read: Callable[[Path, ColumnNames], PushedStep]
    holds: str  # for a user who has something else
