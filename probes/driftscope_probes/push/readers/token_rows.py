"""Tables with one token per row → [tokens] columns with cu_seqlens; CSV and Parquet have such.

In: columns of numbers, with or without one that says to which sequence a row belongs. Out: tensors
in the dtypes of the push format. Without that column, all rows are one sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftscope_probes.push.column_names import (
    SEQUENCE,
    SEQUENCE_ELSEWHERE,
    ColumnNames,
    missing,
)
from driftscope_probes.push.conversion import converted
from driftscope_probes.push.rules import (
    MAX_SEQUENCES,
    MAX_TOKENS,
    REQUIRED,
    RULES,
    PushError,
)

NAMES: Final = (
    *(name for name, rule in RULES.items() if rule.per == "token" and not rule.inner_dimensions),
    SEQUENCE,
)


def flat_names(schema: Any, columns: ColumnNames) -> dict[str, str] | None:
    """Ours → theirs, of a table with one token per row; None: it has one sequence per row."""
    numbers = [one.name for one in schema if _is_number(one.type)]
    texts = [one.name for one in schema if _is_text(one.type)]
    others = [name for name in schema.names if name not in (*numbers, *texts)]
    if columns.knows(others) or not columns.knows(numbers):
        return None
    return names_of_rows(numbers + texts, columns)


def names_of_rows(names: list[str], columns: ColumnNames) -> dict[str, str]:
    """Raises PushError where a side is missing."""
    told = columns.given.get(SEQUENCE)
    candidates = (told,) if told else (SEQUENCE, *SEQUENCE_ELSEWHERE)
    sequence = next((name for name in candidates if name in names), None)
    rest = [name for name in names if name != sequence]
    asked = ColumnNames({k: v for k, v in columns.given.items() if k != SEQUENCE}, columns.side)
    chosen = asked.chosen(rest, NAMES)
    for name in REQUIRED:
        if name not in chosen:
            raise missing(name, "one value per row")
    return chosen if sequence is None else {**chosen, SEQUENCE: sequence}


def tensors_of_rows(columns: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """columns: ours → an Arrow column of numbers; of SEQUENCE, of anything that can be compared."""
    rows = len(columns[REQUIRED[0]])
    if not rows:
        raise PushError("it has no row.", remedy="write one row per token.")
    if rows > MAX_TOKENS:
        raise PushError(
            f"it has {rows:,} rows, accepted are {MAX_TOKENS:,}.",
            remedy="give each data-parallel rank's share as a file of its own.",
        )
    tensors = {name: _numbers(name, column) for name, column in columns.items() if name in RULES}
    if SEQUENCE not in columns:
        return {**tensors, "cu_seqlens": np.array([0, rows], np.int64)}
    order, lengths = _grouped(columns[SEQUENCE])
    return {
        **{name: values[order] for name, values in tensors.items()},
        "cu_seqlens": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    }


def _grouped(column: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows by their sequence, in the order in which sequences begin; and how long each is."""
    chunk = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if chunk.null_count:
        raise PushError(
            f"{chunk.null_count} rows name no sequence.",
            remedy="give every row the number of its sequence, or leave the column out.",
        )
    codes = np.asarray(chunk.dictionary_encode().indices.to_numpy(), dtype=np.int64)
    lengths = np.bincount(codes).astype(np.int64)
    if lengths.size > MAX_SEQUENCES:
        raise PushError(
            f"it has {lengths.size:,} sequences, accepted are {MAX_SEQUENCES:,}.",
            remedy="give each data-parallel rank's share as a file of its own.",
        )
    return np.argsort(codes, kind="stable"), lengths


def _numbers(name: str, column: Any) -> NDArray[Any]:
    """An empty cell of a float column is NaN; of any other there is no value to take."""
    kind, rule = column.type, RULES[name]
    if pa.types.is_null(kind):
        raise PushError(f"{name} has no value in any row.", remedy=f"leave {name} out.")
    if not (_is_number(kind) and (rule.dtypes[0] == "F32" or not pa.types.is_floating(kind))):
        raise PushError(
            f"{name} is a column of {str(kind)[:80]}{_first_that_is_none(column)}; accepted are "
            f"{'numbers' if rule.dtypes[0] == 'F32' else 'integers'}.",
            remedy=f"look at its first values, or map another: --columns {name}=NAME.",
        )
    if rule.dtypes[0] == "F32":
        wide = np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
        exact = pa.types.is_floating(kind) and kind != pa.float64()
        return wide.astype(np.float32) if exact else converted(name, wide, "F64")
    if column.null_count:
        raise PushError(
            f"{name} is empty in {column.null_count} rows.",
            remedy=f"give {name} a value in every row, or leave the column out.",
        )
    if name == "mask":
        return np.asarray(column.cast(pa.int8()).to_numpy())
    return converted(name, np.asarray(column.cast(pa.int64()).to_numpy()), "I64")


def _first_that_is_none(column: Any) -> str:
    """Where a column of text, as a table has it, stops being numbers."""
    for row, cell in enumerate(column.to_pylist(), start=1):
        try:
            float(cell)
        except (TypeError, ValueError):
            return f": row {row} of the data is {str(cell)[:40]!r}"
    return ""


def _is_number(kind: Any) -> bool:
    return bool(
        pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    )


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
