"""A Parquet file → PushedStep: one row per sequence with list columns, or one row per token.

In: a path. Out: PushedStep, or PushError. As the Arrow stream, from pandas, polars and datasets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from driftscope_probes.push.arrow_step import chosen_columns, tensors_of_batches
from driftscope_probes.push.column_names import AS_THEY_ARE, ColumnNames
from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_probes.push.readers.refused import not_a_step
from driftscope_probes.push.readers.token_rows import flat_names, tensors_of_rows
from driftscope_probes.push.rules import (
    MAX_ARROW_BATCHES,
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    MAX_SEQUENCES,
    MAX_TOKENS,
    PushError,
    checked_metadata,
)

#: What other writers put beside the columns, for themselves.
OTHERS: Final = (b"pandas", b"huggingface", b"ARROW:schema")
MAX_REASON_CHARACTERS: Final = 200
#: Entries of one list in the footer: row groups, columns, pages.
MAX_LISTED: Final = 2**16


def read_parquet_step(path: Path, columns: ColumnNames = AS_THEY_ARE) -> PushedStep:
    """What the footer says of sizes is checked before a column is read. Peak memory: about three
    times the columns."""
    try:
        with pq.ParquetFile(
            path,
            thrift_string_size_limit=MAX_HEADER_BYTES,
            thrift_container_size_limit=MAX_LISTED,
        ) as file:
            schema = file.schema_arrow
            if other := not_a_step(schema.names):
                raise other
            _check_sizes(file.metadata)
            if (flat := flat_names(schema, columns)) is not None:
                tensors = _one_token_per_row(file, flat)
            else:
                chosen = chosen_columns(schema, columns)
                tensors = tensors_of_batches(chosen, _batches(file, set(chosen.values())))
    except (pa.ArrowException, OSError) as error:
        reason = "".join(character for character in str(error) if character.isprintable())
        raise PushError(
            f"it is not a valid Parquet file: {reason[:MAX_REASON_CHARACTERS].rstrip('.')}.",
            remedy="write it again, and close the writer.",
        ) from error
    given = {k: v for k, v in (schema.metadata or {}).items() if k not in OTHERS}
    text = {k.decode("utf-8", "replace"): v.decode("utf-8", "replace") for k, v in given.items()}
    return pushed_step(tensors, checked_metadata(text))


def _batches(file: Any, names: Iterable[str]) -> list[Any]:
    return [
        batch
        for group in range(file.num_row_groups)
        for batch in file.read_row_group(group, list(names), use_threads=False).to_batches()
    ]


def _one_token_per_row(file: Any, chosen: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    batches = _batches(file, set(chosen.values()))
    table = pa.Table.from_batches(batches)
    return tensors_of_rows({ours: table.column(theirs) for ours, theirs in chosen.items()})


def _check_sizes(footer: Any) -> None:
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    chunks = [group.column(index) for group in groups for index in range(group.num_columns)]
    values = max((_values(groups, index) for index in range(footer.num_columns)), default=0)
    for what, most, given in (
        ("sequences", MAX_SEQUENCES, footer.num_rows),
        # An empty or missing list is a value as well.
        ("tokens in a column", MAX_TOKENS + MAX_SEQUENCES, values),
        ("bytes unpacked", MAX_FILE_BYTES, sum(one.total_uncompressed_size for one in chunks)),
        ("row groups", MAX_ARROW_BATCHES, footer.num_row_groups),
    ):
        if given > most:
            raise PushError(
                f"it has {given:,} {what}, accepted are {most:,}.",
                remedy="push each data-parallel rank's share as a file of its own.",
            )


def _values(groups: list[Any], column: int) -> int:
    """Values of one column in all row groups."""
    return sum(int(group.column(column).num_values) for group in groups)
