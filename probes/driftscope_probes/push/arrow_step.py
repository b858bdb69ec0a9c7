"""An Arrow IPC stream in the push format → PushedStep: one row per sequence, one list per tensor.

In: a path. Out: PushedStep, or PushError. Routed experts and bfloat16 are read from safetensors.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftscope_probes.push.arrow_messages import WRITE_AGAIN, check_messages
from driftscope_probes.push.column_names import AS_THEY_ARE, ColumnNames, missing
from driftscope_probes.push.conversion import ONE_FOR_ALL, VERSION, converted
from driftscope_probes.push.lengths import lengths_fault
from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_probes.push.rules import (
    MAX_FILE_BYTES,
    MAX_SEQUENCES,
    MAX_TOKENS,
    REQUIRED,
    RULES,
    PushError,
    checked_metadata,
)

#: Lists give each sequence's length: there is no cu_seqlens.
COLUMNS = tuple(
    name for name, rule in RULES.items() if rule.per != "limit" and not rule.inner_dimensions
)
#: Their lists say how long each is.
PROMPTS, LENGTHS_OF_PROMPTS = "prompt_token_ids", "prompt_lengths"
#: Arrow has no bfloat16.
ARROW_TYPES = {
    "F32": pa.float32(),
    "F16": pa.float16(),
    "I32": pa.int32(),
    "U8": pa.uint8(),
    "BOOL": pa.bool_(),
}
#: Read as well and converted: what Python's and pandas' numbers become by default.
CONVERTED_TYPES = {
    "F64": pa.float64(),
    "I64": pa.int64(),
    "I16": pa.int16(),
    "U16": pa.uint16(),
    "I8": pa.int8(),
}
NAME_OF_TYPE = {kind: name for name, kind in (ARROW_TYPES | CONVERTED_TYPES).items()}
MAX_REASON_CHARACTERS = 200


def read_arrow_step(path: Path, columns: ColumnNames = AS_THEY_ARE) -> PushedStep:
    """The messages are checked before Arrow reads any. Peak memory: about three times the file."""
    with path.open("rb") as file:
        tensors, metadata = _read(file, columns)
    return pushed_step(tensors, metadata)


def _read(file: BinaryIO, columns: ColumnNames) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    stream = _content(file)
    entries = check_messages(stream.data)
    options = pa.ipc.IpcReadOptions(use_threads=False)
    try:
        with pa.ipc.open_stream(pa.py_buffer(stream), options=options) as reader:
            metadata = _metadata(reader.schema.metadata or {}, entries)
            chosen = chosen_columns(reader.schema, columns)
            return tensors_of_batches(chosen, reader), metadata
    # OSError is the library's as well, for a stream that ends too soon: nothing is read from disk.
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = "".join(character for character in str(error) if character.isprintable())
        raise PushError(
            f"it is not a valid Arrow stream: {reason[:MAX_REASON_CHARACTERS].rstrip('.')}.",
            remedy=WRITE_AGAIN,
        ) from error


def _content(file: BinaryIO) -> NDArray[np.uint8]:
    size = os.fstat(file.fileno()).st_size
    if size > MAX_FILE_BYTES:
        raise PushError(
            f"it has {size:,} bytes, accepted are {MAX_FILE_BYTES:,}.",
            remedy="push each data-parallel rank's share as a file of its own.",
        )
    return np.fromfile(file, dtype=np.uint8, count=size)


def _metadata(given: dict[bytes, bytes], entries: int) -> dict[str, str]:
    if len(given) != entries:
        raise PushError(
            f"{entries - len(given)} of the {entries} metadata names are there twice.",
            remedy="write each name once.",
        )
    return checked_metadata({name.decode(): value.decode() for name, value in given.items()})


def chosen_columns(schema: Any, columns: ColumnNames) -> dict[str, str]:
    """Ours → theirs. Raises PushError for names and types that the format does not know."""
    chosen = columns.chosen(schema.names, COLUMNS)
    for ours, theirs in chosen.items():
        if schema.names.count(theirs) > 1:
            raise PushError(f"there are two columns {theirs}.", remedy=f"write {theirs} once.")
        _check_type(ours, schema.field(theirs).type)
    for name in REQUIRED:
        if name not in chosen:
            raise missing(name, "one list per sequence")
    return chosen


def _check_type(name: str, given: Any) -> None:
    known = ARROW_TYPES | CONVERTED_TYPES
    values = [known[dtype] for dtype in RULES[name].accepted if dtype in known]
    per_token = RULES[name].per in ("token", "prompt")
    listed = _is_list(given) and given.value_type in values
    single = given in values
    fits = listed if per_token else single
    if name in ONE_FOR_ALL or name == VERSION:
        fits = listed or single
    if not fits:
        accepted = " or ".join(f"list<{one}>" if per_token else str(one) for one in values)
        raise PushError(
            f"{name} is a column of {str(given)[:80]!r}, accepted: {accepted}.",
            remedy=f"convert {name}; bfloat16 is kept exactly by float32.",
        )


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or _is_even(kind))


def _is_even(kind: Any) -> bool:
    """Rows of one length, as arrays of numpy with two dimensions become."""
    return bool(pa.types.is_fixed_size_list(kind))


def _rows(column: Any) -> Any:
    even = _is_even(column.type)
    return column.cast(pa.list_(column.type.value_type)) if even else column


def tensors_of_batches(
    chosen: Mapping[str, str], batches: Iterable[Any]
) -> dict[str, NDArray[Any]]:
    """[tokens] and [sequences] columns with cu_seqlens, from record batches of checked types.
    chosen: ours → theirs."""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in chosen}
    lengths = [np.zeros(1, np.int64)]
    sequences = tokens = 0
    prompts: list[NDArray[np.int64]] | None = [] if PROMPTS in parts else None
    for batch in batches:
        batch.validate(full=True)
        lengths.append(_lengths(REQUIRED[0], _rows(batch.column(chosen[REQUIRED[0]]))))
        sequences += lengths[-1].size
        tokens += int(lengths[-1].sum())
        _check_sizes(sequences, tokens)
        if prompts is not None:
            prompts.append(_lengths(PROMPTS, _rows(batch.column(chosen[PROMPTS]))))
        for name, theirs in chosen.items():
            parts[name].append(_values(name, _rows(batch.column(theirs)), lengths[-1]))
    if not any(own.size for own in lengths[1:]):
        raise PushError("it has no row.", remedy="write one row per sequence.")
    # Always copied: a sender may have stored values unaligned for float32. Half precision becomes
    # float32 on the way, which is exact.
    joined = {
        name: np.concatenate(own, dtype=np.float32 if RULES[name].dtypes[0] == "F32" else None)
        for name, own in parts.items()
    }
    if prompts is not None and LENGTHS_OF_PROMPTS not in joined:
        joined[LENGTHS_OF_PROMPTS] = np.concatenate(prompts).astype(np.int32)
    return {**joined, "cu_seqlens": np.cumsum(np.concatenate(lengths))}


def _values(name: str, column: Any, lengths: NDArray[np.int64]) -> NDArray[Any]:
    values = column
    if RULES[name].per == "prompt":
        values = column.flatten()
    elif _is_list(column.type):
        own = _lengths(name, column).tolist()
        if fault := lengths_fault(name, own, REQUIRED[0], lengths.tolist()):
            raise PushError(fault.message, remedy=fault.remedy)
        values = column.flatten()
    _check_no_null(name, values)
    stored = np.asarray(values.to_numpy(zero_copy_only=False))
    dtype = NAME_OF_TYPE[values.type]
    return stored if dtype in RULES[name].dtypes else converted(name, stored, dtype)


def _lengths(name: str, column: Any) -> NDArray[np.int64]:
    _check_no_null(name, column)
    return np.asarray(column.value_lengths().to_numpy(), dtype=np.int64)


def _check_no_null(name: str, values: Any) -> None:
    if values.null_count:
        raise PushError(
            f"{name} has {values.null_count} nulls.",
            remedy="write NaN for a value that is not finite; leave a whole column out.",
        )


def _check_sizes(sequences: int, tokens: int) -> None:
    """After each batch, of all so far: counted on by the caller, not anew."""
    for what, most, given in (
        ("sequences", MAX_SEQUENCES, sequences),
        ("tokens", MAX_TOKENS, tokens),
    ):
        if given > most:
            raise PushError(
                f"it has {given:,} {what} or more, accepted are {most:,}.",
                remedy="push each data-parallel rank's share as a file of its own.",
            )
