"""An Arrow IPC stream in the push format → PushedStep: one row per sequence, one list per tensor.

In: a path. Out: PushedStep, or PushError. Routed experts and bfloat16 are read from safetensors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftscope_probes.push.arrow_messages import WRITE_AGAIN, check_messages
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
#: Arrow has no bfloat16.
ARROW_TYPES = {
    "F32": pa.float32(),
    "F16": pa.float16(),
    "I32": pa.int32(),
    "U8": pa.uint8(),
    "BOOL": pa.bool_(),
}
MAX_REASON_CHARACTERS = 200


def read_arrow_step(path: Path) -> PushedStep:
    """The messages are checked before Arrow reads any. Peak memory: about three times the file."""
    with path.open("rb") as file:
        tensors, metadata = _read(file)
    return pushed_step(tensors, metadata)


def _read(file: BinaryIO) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    stream = _content(file)
    entries = check_messages(stream.data)
    options = pa.ipc.IpcReadOptions(use_threads=False)
    try:
        with pa.ipc.open_stream(pa.py_buffer(stream), options=options) as reader:
            metadata = _metadata(reader.schema.metadata or {}, entries)
            _check_columns(reader.schema)
            return _tensors(reader), metadata
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


def _check_columns(schema: Any) -> None:
    for name in schema.names:
        if name not in COLUMNS:
            raise PushError(
                f"there is a column {name[:80]!r}; accepted are {', '.join(COLUMNS)}.",
                remedy="rename or drop it; docs/push-format.md says what each column holds.",
            )
        if schema.names.count(name) > 1:
            raise PushError(f"there are two columns {name}.", remedy=f"write {name} once.")
        _check_type(name, schema.field(name).type)
    for name in REQUIRED:
        if name not in schema.names:
            raise PushError(f"there is no {name}.", remedy=f"add {name}: one list per sequence.")


def _check_type(name: str, given: Any) -> None:
    values = [ARROW_TYPES[dtype] for dtype in RULES[name].dtypes if dtype in ARROW_TYPES]
    per_token = RULES[name].per == "token"
    if per_token:
        lists = pa.types.is_list(given) or pa.types.is_large_list(given)
        fits = lists and given.value_type in values
    else:
        fits = given in values
    if not fits:
        accepted = " or ".join(f"list<{one}>" if per_token else str(one) for one in values)
        raise PushError(
            f"{name} is a column of {str(given)[:80]!r}, accepted: {accepted}.",
            remedy=f"convert {name}; bfloat16 is kept exactly by float32.",
        )


def _tensors(reader: Any) -> dict[str, NDArray[Any]]:
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in reader.schema.names}
    lengths = [np.zeros(1, np.int64)]
    for batch in reader:
        batch.validate(full=True)
        lengths.append(_lengths(REQUIRED[0], batch.column(REQUIRED[0])))
        _check_sizes(lengths)
        for name, column in zip(parts, batch.columns, strict=True):
            parts[name].append(_values(name, column, lengths[-1]))
    if not any(own.size for own in lengths[1:]):
        raise PushError("it has no row.", remedy="write one row per sequence.")
    return {**_joined(parts), "cu_seqlens": np.cumsum(np.concatenate(lengths))}


def _joined(parts: Mapping[str, Sequence[NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Always copied: a sender may have stored values unaligned for float32.

    Half precision becomes float32, which is exact: float32 holds every such value.
    """
    return {
        name: np.concatenate(own, dtype=np.float32 if "F32" in RULES[name].dtypes else None)
        for name, own in parts.items()
    }


def _values(name: str, column: Any, lengths: NDArray[np.int64]) -> NDArray[Any]:
    values = column
    if RULES[name].per == "token":
        if not np.array_equal(_lengths(name, column), lengths):
            raise PushError(
                f"{name} is cut into sequences of other lengths than {REQUIRED[0]}.",
                remedy=f"give {name} one value per token of every sequence.",
            )
        values = column.flatten()
    _check_no_null(name, values)
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _lengths(name: str, column: Any) -> NDArray[np.int64]:
    _check_no_null(name, column)
    return np.asarray(column.value_lengths().to_numpy(), dtype=np.int64)


def _check_no_null(name: str, values: Any) -> None:
    if values.null_count:
        raise PushError(
            f"{name} has {values.null_count} nulls.",
            remedy="write NaN for a value that is not finite; leave a whole column out.",
        )


def _check_sizes(lengths: Sequence[NDArray[np.int64]]) -> None:
    for what, most, given in (
        ("sequences", MAX_SEQUENCES, sum(own.size for own in lengths) - 1),
        ("tokens", MAX_TOKENS, sum(int(own.sum()) for own in lengths)),
    ):
        if given > most:
            raise PushError(
                f"it has {given:,} {what} or more, accepted are {most:,}.",
                remedy="push each data-parallel rank's share as a file of its own.",
            )
