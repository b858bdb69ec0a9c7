"""The header of a safetensors file, checked before a byte of the data is read or trusted.

In: an open file. Out: SafetensorsHeader: tensors that fill the data exactly, in known dtypes.
The format: 8-byte little-endian header length, JSON header, then all data without gaps.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

from driftscope_probes.push.rules import (
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    RULES,
    STORED_AS,
    PushError,
    checked_metadata,
)
from driftscope_probes.push.strict_json import parse_object

LENGTH_BYTES = 8
ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
#: Padded routed experts: sequences, tokens, layers, experts of a token.
MAX_DIMENSIONS = 4
#: The format's sizes are 64-bit; Python's would grow with every product until unprintable.
TOO_LARGE = 2**63
WRITE_AGAIN = "write it with the safetensors library and send it whole."


@dataclass(frozen=True, slots=True)
class StoredTensor:
    name: str
    dtype: str  # safetensors name
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file
    end: int

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]


def read_header(stream: BinaryIO) -> SafetensorsHeader:
    """Raises PushError. At most MAX_HEADER_BYTES are read, whatever the file claims."""
    size = os.fstat(stream.fileno()).st_size
    if size > MAX_FILE_BYTES:
        raise PushError(
            f"it has {size:,} bytes, accepted are {MAX_FILE_BYTES:,}.",
            remedy="push each data-parallel rank's share as a file of its own.",
        )
    start = stream.read(LENGTH_BYTES)
    if len(start) < LENGTH_BYTES:
        raise PushError(f"it ends after {len(start)} bytes.", remedy=WRITE_AGAIN)
    (length,) = struct.unpack("<Q", start)
    if length > min(MAX_HEADER_BYTES, size - LENGTH_BYTES):
        raise PushError(
            f"its header claims {length:,} bytes; accepted are {MAX_HEADER_BYTES:,}, and the "
            f"file has {size:,}.",
            remedy=WRITE_AGAIN,
        )
    fields = parse_object(stream.read(length), "the safetensors header")
    metadata = checked_metadata(fields.pop("__metadata__", {}))
    data = LENGTH_BYTES + length
    tensors = {name: _tensor(name, entry, data) for name, entry in fields.items()}
    _check_filled(tensors, data, size)
    return SafetensorsHeader(tensors, metadata)


def _tensor(name: str, entry: object, data: int) -> StoredTensor:
    if name not in RULES:
        raise PushError(
            f"there is a tensor {name[:80]!r}; accepted are {', '.join(RULES)}.",
            remedy="rename or drop it; docs/push-format.md says what each tensor holds.",
        )
    if not isinstance(entry, dict) or entry.keys() != ENTRY_KEYS:
        raise _malformed(name, "it does not have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    accepted = RULES[name].dtypes
    if not isinstance(dtype, str) or dtype not in accepted:
        raise PushError(
            f"{name} has dtype {str(dtype)[:80]!r}, accepted: {', '.join(accepted)}.",
            remedy=f"convert {name} to {accepted[0]}.",
        )
    if not _natural_numbers(shape) or len(shape) > MAX_DIMENSIONS:
        raise _malformed(
            name, f"its shape is not a list of up to {MAX_DIMENSIONS} natural numbers below 2^63"
        )
    if not _natural_numbers(offsets) or len(offsets) != 2:
        raise _malformed(name, "its data_offsets are not two natural numbers below 2^63")
    claimed, needed = offsets[1] - offsets[0], prod(shape) * STORED_AS[dtype].itemsize
    if claimed != needed:
        raise _malformed(name, f"its shape needs {needed} bytes, its data_offsets span {claimed}")
    return StoredTensor(name, dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _natural_numbers(values: Any) -> bool:
    # type(), because True is an int to isinstance().
    return isinstance(values, list) and all(type(v) is int and 0 <= v < TOO_LARGE for v in values)


def _check_filled(tensors: Mapping[str, StoredTensor], data: int, size: int) -> None:
    """Tensors lie end to end: every byte belongs to exactly one."""
    end = data
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != end:
            kind = "overlaps another tensor" if tensor.begin < end else "leaves a gap before it"
            raise _malformed(tensor.name, f"it {kind}")
        end = tensor.end
    if end != size:
        raise PushError(
            f"its header describes {end - data} bytes of data, {size - data} are there.",
            remedy=WRITE_AGAIN,
        )


def _malformed(name: str, why: str) -> PushError:
    return PushError(f"the header entry of {name} is malformed: {why}.", remedy=WRITE_AGAIN)
