"""Records under the names of the push format, one per sequence: JSON lines, or a JSON list.

In: a path, or records with where each stands. Out: PushedStep. Lists are per token, numbers per
sequence; every record has the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.push.column_names import AS_THEY_ARE, ColumnNames, missing
from driftscope_probes.push.conversion import ONE_FOR_ALL, VERSION
from driftscope_probes.push.json_step import (
    COLUMNS,
    METADATA,
    float_column,
    integer_column,
    mask_column,
    parse_object,
)
from driftscope_probes.push.lengths import lengths_fault
from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_probes.push.rules import (
    MAX_EXPORT_BYTES,
    MAX_EXPORT_LINE_BYTES,
    MAX_SEQUENCES,
    MAX_TOKENS,
    REQUIRED,
    RULES,
    PushError,
    checked_metadata,
)

#: A record's prompt is as long as its list.
PROMPTS, LENGTHS_OF_PROMPTS = "prompt_token_ids", "prompt_lengths"
#: Records say by their lists how long each sequence is.
NAMES = tuple(name for name in COLUMNS if RULES[name].per != "limit")


def lines_of(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Lines that are not empty, with their numbers from 1. Raises PushError beyond the limits."""
    number, total = 0, 0
    while line := stream.readline(MAX_EXPORT_LINE_BYTES + 1):
        number, total = number + 1, total + len(line)
        if len(line) > MAX_EXPORT_LINE_BYTES or total > MAX_EXPORT_BYTES:
            raise PushError(
                f"line {number} is longer than {MAX_EXPORT_LINE_BYTES:,} bytes, or the file than "
                f"{MAX_EXPORT_BYTES:,}.",
                remedy="give the file of one step and rank.",
            )
        if line.strip():
            yield number, line


def samples_of(
    where: str, record: Mapping[str, Any], column: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A record is one sequence, or a batch: then every list has an entry for each of them."""
    values = record.get(column)
    if not (isinstance(values, list) and values and isinstance(values[0], list)):
        yield where, record
        return
    for index in range(len(values)):
        sample = {
            name: given[index] if isinstance(given, list) and len(given) == len(values) else given
            for name, given in record.items()
        }
        yield f"{where}, sample {index}", sample


def check_size(tokens: int, sequences: int, where: str) -> None:
    if tokens > MAX_TOKENS or sequences > MAX_SEQUENCES:
        raise PushError(
            f"it goes beyond {MAX_TOKENS:,} tokens or {MAX_SEQUENCES:,} sequences, the limits, at "
            f"{where}.",
            remedy="split it by lines.",
        )


def read_json_lines(path: Path, columns: ColumnNames = AS_THEY_ARE) -> PushedStep:
    with path.open("rb") as stream:
        records = (
            (f"line {number}", parse_object(line, f"line {number}"))
            for number, line in lines_of(stream)
        )
        return step_of_records(records, columns)


def step_of_records(
    records: Iterable[tuple[str, Mapping[str, Any]]], names: ColumnNames = AS_THEY_ARE
) -> PushedStep:
    """`records`: where each stands, for errors, and what it holds."""
    parts: dict[str, list[NDArray[Any]]] = {}
    metadata: dict[str, str] | None = None
    first, tokens, sequences = "", 0, 0
    singles = (
        one
        for where, record in records
        for one in samples_of(where, record, _rollout_in(record, names))
    )
    for where, record in singles:
        own = checked_metadata(record.get(METADATA, {}))
        columns = _columns(where, record, names)
        if metadata is None:
            first, metadata, parts = where, own, {name: [] for name in columns}
        _check_alike(where, columns, own, first, parts, metadata)
        for name, column in columns.items():
            parts[name].append(column)
        tokens, sequences = tokens + columns[REQUIRED[0]].size, sequences + 1
        check_size(tokens, sequences, where)
    if metadata is None:
        raise PushError("it holds no record.", remedy="write one record per sequence.")
    lengths = _lengths(parts)
    limits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    joined = {name: np.concatenate(own) for name, own in parts.items()}
    if PROMPTS in parts and LENGTHS_OF_PROMPTS not in joined:
        joined[LENGTHS_OF_PROMPTS] = np.array([ids.size for ids in parts[PROMPTS]], np.int32)
    return pushed_step({**joined, "cu_seqlens": limits}, metadata)


def _rollout_in(record: Mapping[str, Any], names: ColumnNames) -> str:
    """A side in it, as far as that can be told before its columns are checked."""
    return next((name for name in record if names.knows([name])), REQUIRED[0])


def _columns(where: str, record: Mapping[str, Any], names: ColumnNames) -> dict[str, NDArray[Any]]:
    """[tokens] or, of a label, [1]."""
    given = [name for name in record if name != METADATA]
    chosen = names.chosen(given, NAMES, f"{where} has a field")
    for name in REQUIRED:
        if name not in chosen:
            raise missing(name, "one value per token", f"{where} has")
    return {
        ours: _column(f"{where}: {theirs}", ours, record[theirs]) for ours, theirs in chosen.items()
    }


def _column(label: str, name: str, value: Any) -> NDArray[Any]:
    either = name in ONE_FOR_ALL or RULES[name].per == "sequence"
    values = [value] if either and not isinstance(value, list) else value
    if name == "mask":
        return mask_column(label, values)
    if RULES[name].dtypes[0] == "F32":
        return float_column(label, values)
    return integer_column(label, values, np.int32)


def _check_alike(
    where: str,
    columns: Mapping[str, NDArray[Any]],
    own: Mapping[str, str],
    first: str,
    known: Mapping[str, object],
    metadata: Mapping[str, str],
) -> None:
    for name in sorted(columns.keys() ^ known.keys()):
        has, lacks = (where, first) if name in columns else (first, where)
        raise PushError(
            f"{has} has {name}, {lacks} does not.",
            remedy=f"give {name} in every record or in none.",
        )
    if own != metadata:
        raise PushError(
            f"the metadata of {where} are not those of {first}.",
            remedy="write the same metadata into every record of a step.",
        )


def _lengths(parts: dict[str, list[NDArray[Any]]]) -> list[int]:
    """Tokens of each sequence; PushError where columns disagree."""
    lengths = [part.size for part in parts[REQUIRED[0]]]
    for name, own in parts.items():
        sizes = [part.size for part in own]
        once = set(sizes) <= {1} and (name in ONE_FOR_ALL or RULES[name].per == "sequence")
        per = RULES[name].per
        if once or per == "prompt" or (per == "sequence" and name != VERSION):
            continue
        if fault := lengths_fault(name, sizes, REQUIRED[0], lengths):
            raise PushError(fault.message, remedy=fault.remedy)
    return lengths
