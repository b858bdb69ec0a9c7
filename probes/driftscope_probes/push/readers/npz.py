"""A numpy archive (.npz) with the tensors of the push format → PushedStep.

In: a path. Out: PushedStep, packed or padded as in safetensors. Strings without a dimension are
metadata. Nothing is unpickled: a member that holds Python objects is refused.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.push.column_names import AS_THEY_ARE, BESIDE, ColumnNames
from driftscope_probes.push.conversion import converted
from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_probes.push.readers.base import MAX_MEMBERS
from driftscope_probes.push.rules import (
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    REQUIRED,
    RULES,
    STORED_AS,
    PushError,
    checked_metadata,
)
from driftscope_probes.push.safetensors_step import StoredTensor, flat, step_layout

SUFFIX: Final = ".npy"
#: By the version of the format; numpy writes the second only for headers beyond 64 KiB.
HEADERS: Final[Mapping[tuple[int, int], Callable[..., Any]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
#: What describes a step, or its samples: numpy's kinds of strings and bytes.
TEXT: Final = "US"
DAMAGED: Final = (zipfile.BadZipFile, zlib.error, struct.error)
WRITE_AGAIN: Final = "write it with np.savez and send it whole."
#: numpy's own names of what is stored; BF16 has none, and BOOL is checked as a number.
DTYPE_NAMES: Final = {
    np.dtype(kind).name: name for name, kind in STORED_AS.items() if name not in ("BF16", "BOOL")
} | {"bool": "BOOL"}


def read_npz(path: Path, columns: ColumnNames = AS_THEY_ARE) -> PushedStep:
    """Sizes are those that the archive's members say, checked before any is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive)
            members = {_name(info): info for info in archive.infolist()}
            headers = {name: _header(archive, info) for name, info in members.items()}
            numbers = [name for name, one in headers.items() if one.dtype.kind not in TEXT]
            chosen = columns.chosen(numbers, tuple(RULES), "there is an array")
            arrays = {ours: _array(archive, members[name]) for ours, name in chosen.items()}
            texts = {
                name: str(_array(archive, members[name]))
                for name, one in headers.items()
                if one.dtype.kind == "U" and one.shape == () and name not in BESIDE
            }
    # RuntimeError: an encrypted member; ValueError: a damaged name or date.
    except (*DAMAGED, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise PushError(f"it is not a valid archive: {error}.", remedy=WRITE_AGAIN) from error
    return pushed_step(_tensors(arrays, columns), checked_metadata(texts))


def read_npy(path: Path, columns: ColumnNames) -> PushedStep:
    """One array: of a side alone."""
    with path.open("rb") as stream:
        header = array_header(stream, path.name)
        if header.dtype.hasobject or path.stat().st_size > MAX_FILE_BYTES:
            raise PushError(
                f"it holds Python objects, or more than {MAX_FILE_BYTES:,} bytes.",
                remedy="give an array of numbers: np.concatenate(rows).",
            )
        data = np.frombuffer(stream.read(), header.dtype)
    if data.size != prod(header.shape):
        raise PushError(f"it has {data.nbytes:,} bytes of data.", remedy=WRITE_AGAIN)
    flat = data.reshape(-1)
    return pushed_step(_tensors(dict.fromkeys(REQUIRED, flat), columns), checked_metadata({}))


def _check_sizes(archive: zipfile.ZipFile) -> None:
    if len(archive.infolist()) > MAX_MEMBERS:
        raise PushError(
            f"it has {len(archive.infolist()):,} members, accepted are {MAX_MEMBERS:,}.",
            remedy="give one array per column: np.savez(file, rollout_logprobs=…, …).",
        )
    size = sum(info.file_size for info in archive.infolist())
    if size > MAX_FILE_BYTES:
        raise PushError(
            f"it holds {size:,} bytes unpacked, accepted are {MAX_FILE_BYTES:,}.",
            remedy="push each data-parallel rank's share as a file of its own.",
        )


def _name(info: zipfile.ZipInfo) -> str:
    return info.filename.removesuffix(SUFFIX)


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


def headers_of(path: Path, values: int) -> list[tuple[str, ArrayHeader, list[Any]]]:
    """Name, header and the first values of each array, without reading more."""
    found = []
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist()[:MAX_MEMBERS]:
            with archive.open(info) as member:
                header = array_header(member, _name(info))
                plain = header.dtype.kind in "biuf" and bool(prod(header.shape))
                raw = member.read(values * header.dtype.itemsize) if plain else b""
            whole = len(raw) // header.dtype.itemsize * header.dtype.itemsize if raw else 0
            first = np.frombuffer(raw[:whole], header.dtype).tolist() if whole else []
            found.append((_name(info), header, first))
    return found


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArrayHeader:
    with archive.open(info) as member:
        return array_header(member, _name(info))


def array_header(member: IO[bytes], name: str) -> ArrayHeader:
    try:
        read = HEADERS[np.lib.format.read_magic(member)]  # type: ignore[no-untyped-call]
        return ArrayHeader(*read(member, max_header_size=MAX_HEADER_BYTES))
    except (ValueError, KeyError) as error:
        raise PushError(
            f"{name[:80]!r} is not an array as numpy writes it.", remedy=WRITE_AGAIN
        ) from error


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    name = _name(info)
    with archive.open(info) as member:
        header = array_header(member, name)
        if header.dtype.hasobject:
            raise PushError(
                f"{name[:80]!r} holds Python objects, which are pickled; pickles are not read.",
                remedy="give arrays of numbers: one per token, np.concatenate(rows), with "
                "cu_seqlens=np.cumsum([0, *map(len, rows)]).",
            )
        data = member.read()
    if len(data) != prod(header.shape) * header.dtype.itemsize:
        raise PushError(f"{name[:80]!r} has {len(data)} bytes of data.", remedy=WRITE_AGAIN)
    order: Literal["F", "C"] = "F" if header.fortran else "C"
    return np.frombuffer(data, header.dtype).reshape(header.shape, order=order)


def _tensors(arrays: Mapping[str, NDArray[Any]], columns: ColumnNames) -> dict[str, NDArray[Any]]:
    stored = {}
    one = arrays.get(REQUIRED[0])
    if one is not None and one.ndim == 1 and "cu_seqlens" not in arrays and "mask" not in arrays:
        # Two flat arrays are one sequence, as two columns of a table are.
        arrays = {**arrays, "cu_seqlens": np.array([0, one.size], np.int64)}
    for name, array in arrays.items():
        dtype = DTYPE_NAMES.get(array.dtype.name, array.dtype.name)
        if dtype not in RULES[name].accepted:
            raise PushError(
                f"{name} has dtype {dtype}, accepted: {', '.join(RULES[name].accepted)}.",
                remedy=f"convert {name} to {RULES[name].dtypes[0]}.",
            )
        stored[name] = StoredTensor(name, dtype, array.shape, 0, 0)
    layout = step_layout(stored, columns)
    tensors = {
        name: converted(name, _native(arrays[name]).reshape(one.shape), one.dtype)
        for name, one in layout.tensors.items()
    }
    return flat(tensors, layout)


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """In the byte order of safetensors."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
