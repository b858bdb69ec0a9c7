"""A CSV (comma, semicolon or tab) with one token per row → PushedStep.

In: a path. Out: PushedStep. The first row names the columns; where it holds numbers only, the
columns are called 1, 2, 3 …, and `--columns rollout_logprobs=1,trainer_logprobs=2` says which is
which. A column `sequence` (or sample, idx, …) cuts the rows into sequences; without one they are
one sequence. Source of the shape: pandas' DataFrame.to_csv, one row per token.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pyarrow import csv as arrow_csv

from driftscope_probes.push.column_names import AS_THEY_ARE, ColumnNames
from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_probes.push.readers.base import header_of
from driftscope_probes.push.readers.token_rows import names_of_rows, tensors_of_rows
from driftscope_probes.push.rules import (
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    PushError,
    checked_metadata,
)

#: As Python, numpy and R write what is not finite; an empty cell as well. All become NaN.
NOT_FINITE: Final = ("", "null", "NULL", "None", "NA", "N/A", "nan", "NaN", "NAN", "-nan")
#: Rows are parsed in blocks of it; a longer row is refused.
BLOCK_BYTES: Final = 2**20
MAX_REASON_CHARACTERS: Final = 200


def read_csv(path: Path, columns: ColumnNames = AS_THEY_ARE) -> PushedStep:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise PushError(
            f"it has more than {MAX_FILE_BYTES:,} bytes.", remedy="write it as Parquet."
        )
    with path.open("rb") as stream:
        first = stream.readline(MAX_HEADER_BYTES).decode("utf-8-sig", "replace").rstrip("\r\n")
    found = header_of(first)
    if found is None:
        raise PushError(
            f"its first line is {first[:80]!r}, not the names of two columns or more.",
            remedy="write rollout_logprobs,trainer_logprobs and one row per token below it.",
        )
    names, delimiter = found
    named = not all(_is_number(name) for name in names)
    if not named:
        names = [str(index + 1) for index in range(len(names))]
    chosen = _chosen(names, columns, named, first)
    table = _table(path, names, delimiter, sorted(set(chosen.values())), skip=int(named))
    tensors = tensors_of_rows({ours: table.column(theirs) for ours, theirs in chosen.items()})
    return pushed_step(tensors, checked_metadata({}))


def _chosen(names: list[str], columns: ColumnNames, named: bool, first: str) -> dict[str, str]:
    if not named and not columns.given:
        raise PushError(
            f"its first row is numbers, {first[:80]}: nothing says which column is which side.",
            remedy="add a first row rollout_logprobs,trainer_logprobs, or give --columns "
            "rollout_logprobs=1,trainer_logprobs=2.",
        )
    for name in names:
        if names.count(name) > 1:
            raise PushError(f"there are two columns {name[:80]!r}.", remedy="name each once.")
    return names_of_rows(names, columns)


def _table(path: Path, names: list[str], delimiter: str, wanted: list[str], *, skip: int) -> Any:
    try:
        return arrow_csv.read_csv(
            path,
            arrow_csv.ReadOptions(
                use_threads=False, block_size=BLOCK_BYTES, skip_rows=skip, column_names=names
            ),
            arrow_csv.ParseOptions(delimiter=delimiter),
            arrow_csv.ConvertOptions(
                include_columns=wanted, null_values=list(NOT_FINITE), strings_can_be_null=True
            ),
        )
    except pa.ArrowException as error:
        reason = "".join(character for character in str(error) if character.isprintable())
        raise PushError(
            f"it is not a table: {reason[:MAX_REASON_CHARACTERS].rstrip('.')}.",
            remedy="give every row as many cells as the first, and each column one kind of value.",
        ) from error


def _is_number(cell: str) -> bool:
    try:
        return not math.isnan(float(cell or "0"))
    except ValueError:
        return False
