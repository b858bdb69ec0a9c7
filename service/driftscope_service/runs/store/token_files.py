"""The tokens of one step at rest: Parquet, one row per sequence, one list column per tensor.

In: a PushedStep and a path. Out: a file that is whole or absent; read back, the same step bit by
bit. Other readers of Parquet see the same columns; experts are one binary per sequence, the bytes
of [tokens, layers, k].
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from driftscope_probes.durable_file import whole_file
from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_probes.push.rules import RULES, PushError

#: Where the file keeps, as JSON, the step's metadata, what one token's experts are, and a checksum
#: of everything: Parquet has one for each page and none for its footer.
STEP_KEY = b"driftscope_step"
#: A reader takes one row group into memory: a million tokens are tens of megabytes …
GROUP_TOKENS = 2**20
#: … but 400 MB with the experts of 48 layers × 8, so that bytes limit a group as well.
GROUP_BYTES = 64 * 2**20
#: 4M tokens: level 9 saves 1 % and takes 2.5 times as long.
ZSTD_LEVEL = 3


class TokenFileError(Exception):
    """A file of tokens that is damaged or that `write_tokens` did not write."""


def write_tokens(path: Path, step: PushedStep) -> int:
    """Returns the size in bytes. On disk when it returns; OSError leaves no partial file behind."""
    with whole_file(path) as file:
        _write(file, step)
    return path.stat().st_size


def read_tokens(path: Path) -> PushedStep:
    """Raises FileNotFoundError, or TokenFileError where the file is damaged."""
    with path.open("rb") as file:
        try:
            return _read(file)
        # A damaged footer may be nonsensical in any of these ways.
        except (pa.ArrowException, OSError, LookupError, TypeError, ValueError, PushError) as error:
            raise TokenFileError(f"{path.name} is damaged: {error}") from error


def _write(file: BinaryIO, step: PushedStep) -> None:
    columns = {name: tensor for name, tensor in step.tensors().items() if name != "cu_seqlens"}
    experts = {
        name: {"dtype": tensor.dtype.name, "shape": tensor.shape[1:]}
        for name, tensor in columns.items()
        if RULES[name].inner_dimensions
    }
    kept = json.dumps(
        {"metadata": dict(step.metadata), "experts": experts, "crc32": _checksum(step)}
    )
    tables = (_table(columns, step.cu_seqlens, rows) for rows in _groups(columns, step.cu_seqlens))
    first = next(tables)
    schema = first.schema.with_metadata({STEP_KEY: kept.encode()})
    split = [
        f"{name}.list.element"
        for name, tensor in columns.items()
        if RULES[name].per == "token" and tensor.ndim == 1 and tensor.itemsize == 4
    ]
    with pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        # Log-probabilities hardly repeat; split bytes save 4 % of the token ids as well.
        use_dictionary=False,
        use_byte_stream_split=split,
        write_statistics=False,
        write_page_checksum=True,
    ) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _groups(columns: Mapping[str, NDArray[Any]], cu_seqlens: NDArray[np.int64]) -> Iterator[slice]:
    """The sequences of each row group; one that is longer than a group is a group of its own."""
    token_bytes = sum(
        tensor.itemsize * int(np.prod(tensor.shape[1:]))
        for name, tensor in columns.items()
        if RULES[name].per == "token"
    )
    most = min(GROUP_TOKENS, GROUP_BYTES // token_bytes)
    first, last = 0, cu_seqlens.size - 1
    while first < last:
        fits = int(np.searchsorted(cu_seqlens, cu_seqlens[first] + most, side="right")) - 1
        end = max(first + 1, fits)
        yield slice(first, end)
        first = end


def _table(
    columns: Mapping[str, NDArray[Any]], cu_seqlens: NDArray[np.int64], rows: slice
) -> pa.Table:
    limits = cu_seqlens[rows.start : rows.stop + 1]
    tokens = slice(int(limits[0]), int(limits[-1]))
    arrays: dict[str, pa.Array] = {}
    prompts = _prompt_limits(columns)
    for name, tensor in columns.items():
        if RULES[name].per == "sequence":
            arrays[name] = pa.array(tensor[rows])
        elif RULES[name].per == "prompt":
            own = prompts[rows.start : rows.stop + 1]
            arrays[name] = _lists(tensor[own[0] : own[-1]], own)
        elif RULES[name].inner_dimensions:
            arrays[name] = _binaries(tensor[tokens], limits - limits[0])
        else:
            arrays[name] = _lists(tensor[tokens], limits)
    fields = [pa.field(name, array.type, nullable=False) for name, array in arrays.items()]
    return pa.table(list(arrays.values()), schema=pa.schema(fields))


def _prompt_limits(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """[sequences + 1] offsets into the prompts; a step with prompts has their lengths."""
    lengths = columns.get("prompt_lengths", np.zeros(0, np.int32))
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _lists(values: NDArray[Any], limits: NDArray[np.int64]) -> pa.Array:
    stored = pa.array(values)
    element = pa.field("element", stored.type, nullable=False)
    offsets = pa.array((limits - limits[0]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, stored, type=pa.list_(element))


def _binaries(experts: NDArray[Any], limits: NDArray[np.int64]) -> pa.Array:
    """A list per token would take four bytes of levels for every expert's one or two."""
    token_bytes = experts.itemsize * int(np.prod(experts.shape[1:]))
    # 32 bits are enough: a sequence is part of one file, which has at most 2 GiB.
    offsets = pa.py_buffer((limits * token_bytes).astype(np.int32))
    data = pa.py_buffer(np.ascontiguousarray(experts))
    return pa.Array.from_buffers(pa.binary(), limits.size - 1, [None, offsets, data])


def _read(file: BinaryIO) -> PushedStep:
    """Column by column. Peak: the step and twice its widest column."""
    parquet = pq.ParquetFile(file, page_checksum_verification=True)
    kept = json.loads((parquet.schema_arrow.metadata or {})[STEP_KEY])
    names = [name for name in RULES if name in parquet.schema_arrow.names]
    tensors: dict[str, Any] = {}
    for name in names:
        (column,) = parquet.read(columns=[name], use_threads=False).columns
        if RULES[name].per == "sequence":
            tensors[name] = column.to_numpy()
            continue
        tensors[name] = np.concatenate([_values(chunk) for chunk in column.chunks])
        if name == names[0]:
            lengths = [chunk.value_lengths().to_numpy() for chunk in column.chunks]
            tensors["cu_seqlens"] = np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64)
    for name, experts in kept["experts"].items():
        packed = tensors[name].view(experts["dtype"])
        tensors[name] = packed.reshape(tensors["cu_seqlens"][-1], *experts["shape"])
    step = pushed_step(tensors, kept["metadata"])
    if _checksum(step) != kept["crc32"]:
        raise ValueError("its content does not have the checksum that was written")
    return step


def _checksum(step: PushedStep) -> int:
    total = zlib.crc32(json.dumps(dict(step.metadata)).encode())
    for name, tensor in step.tensors().items():
        total = zlib.crc32(f"{name} {tensor.dtype} {tensor.shape}".encode(), total)
        total = zlib.crc32(np.ascontiguousarray(tensor).data, total)
    return total


def _values(column: pa.Array) -> NDArray[Any]:
    if pa.types.is_list(column.type):
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False))
    if not pa.types.is_binary(column.type):
        raise ValueError(f"a column is of {column.type}")
    _, offsets, data = column.buffers()
    limits = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    return np.frombuffer(data, np.uint8)[limits[0] : limits[-1]]
