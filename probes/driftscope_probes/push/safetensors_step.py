"""A pushed step as safetensors: the header is checked before any tensor is read."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.plural import counted
from driftscope_probes.push.column_names import AS_THEY_ARE, ColumnNames, missing
from driftscope_probes.push.conversion import ONE_FOR_ALL, VERSION, converted, count_remedy
from driftscope_probes.push.json_step import parse_object
from driftscope_probes.push.pushed_step import PushedStep, as_mask, pushed_step, response_span
from driftscope_probes.push.rules import (
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    MAX_SEQUENCES,
    MAX_TOKENS,
    REQUIRED,
    RULES,
    STORED_AS,
    PushError,
    checked_metadata,
)

LENGTH_BYTES = 8
ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
#: Padded routed experts: sequences, tokens, layers, experts of a token.
MAX_DIMENSIONS = 4
#: The format's sizes are 64-bit; Python's would grow with every product until unprintable.
TOO_LARGE = 2**63
WRITE_AGAIN = "write it with the safetensors library and send it whole."
EXACT_IDS = (
    "use the smallest of these that holds every id: U8 up to 255, I16 up to 32,767 and -1 for no "
    "route, U16 up to 65,535, else I32; astype() wraps what does not fit, without a word."
)


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


def read_header(stream: BinaryIO, columns: ColumnNames = AS_THEY_ARE) -> SafetensorsHeader:
    """Raises PushError. At most MAX_HEADER_BYTES are read, whatever the file claims."""
    size = os.fstat(stream.fileno()).st_size
    if size > MAX_FILE_BYTES:
        raise PushError(
            f"it has {size:,} bytes, accepted are {MAX_FILE_BYTES:,}.",
            remedy="push each data-parallel rank's share as a file of its own.",
        )
    start = stream.read(LENGTH_BYTES)
    if len(start) < LENGTH_BYTES:
        raise PushError(f"it ends after {counted(len(start), 'byte')}.", remedy=WRITE_AGAIN)
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
    spans = {name: _span(name, entry, data) for name, entry in fields.items()}
    chosen = columns.chosen(fields, tuple(RULES), "there is a tensor")
    tensors = {
        ours: _tensor(ours, fields[theirs], spans[theirs]) for ours, theirs in chosen.items()
    }
    _check_filled(spans, data, size)
    return SafetensorsHeader(tensors, metadata)


def _span(name: str, entry: object, data: int) -> tuple[int, int]:
    """Bytes from the start of the file, of any tensor: also of one that is left out."""
    if not isinstance(entry, dict) or entry.keys() != ENTRY_KEYS:
        raise _malformed(name, "it does not have exactly dtype, shape and data_offsets")
    offsets = entry["data_offsets"]
    if not _natural_numbers(offsets) or len(offsets) != 2:
        raise _malformed(name, "its data_offsets are not two natural numbers below 2^63")
    return data + offsets[0], data + offsets[1]


def _tensor(name: str, entry: Mapping[str, Any], span: tuple[int, int]) -> StoredTensor:
    dtype, shape = entry["dtype"], entry["shape"]
    accepted = RULES[name].accepted
    if not isinstance(dtype, str) or dtype not in accepted:
        raise PushError(
            f"{name} has dtype {str(dtype)[:80]!r}, accepted: {', '.join(accepted)}.",
            remedy=EXACT_IDS
            if RULES[name].inner_dimensions
            else f"convert {name} to {accepted[0]}.",
        )
    if not _natural_numbers(shape) or len(shape) > MAX_DIMENSIONS:
        raise _malformed(
            name, f"its shape is not a list of up to {MAX_DIMENSIONS} natural numbers below 2^63"
        )
    claimed, needed = span[1] - span[0], prod(shape) * STORED_AS[dtype].itemsize
    if claimed != needed:
        raise _malformed(name, f"its shape needs {needed} bytes, its data_offsets span {claimed}")
    return StoredTensor(name, dtype, tuple(shape), *span)


def _natural_numbers(values: Any) -> bool:
    # type(), because True is an int to isinstance().
    return isinstance(values, list) and all(type(v) is int and 0 <= v < TOO_LARGE for v in values)


def _check_filled(spans: Mapping[str, tuple[int, int]], data: int, size: int) -> None:
    """Tensors lie end to end: every byte belongs to exactly one."""
    end = data
    for (begin, until), name in sorted((span, name) for name, span in spans.items()):
        if begin != end or until < begin:
            kind = "leaves a gap before it" if begin > end else "overlaps another tensor"
            raise _malformed(name, f"it {kind}")
        end = until
    if end != size:
        raise PushError(
            f"its header describes {end - data} bytes of data, {size - data} are there.",
            remedy=WRITE_AGAIN,
        )


def _malformed(name: str, why: str) -> PushError:
    return PushError(f"the header entry of {name} is malformed: {why}.", remedy=WRITE_AGAIN)


PACKED_OR_PADDED = (
    "give [tokens] tensors with cu_seqlens, or [sequences, longest] tensors with a mask."
)


@dataclass(frozen=True, slots=True)
class StepLayout:
    token_shape: tuple[int, ...]  # (tokens,), or (sequences, longest) where padded
    sequences: int
    tensors: Mapping[str, StoredTensor]  # without dimensions of 1 that say nothing
    uncut: bool = False  # one side, [tokens], which does not say where sequences end

    @property
    def padded(self) -> bool:
        return len(self.token_shape) == 2


def step_layout(
    tensors: Mapping[str, StoredTensor], columns: ColumnNames = AS_THEY_ARE
) -> StepLayout:
    for name in REQUIRED:
        if name not in tensors:
            raise missing(name, "one value per token")
    tensors = {name: _without_ones(one, tensors) for name, one in tensors.items()}
    token_shape = tensors[REQUIRED[0]].shape
    if len(token_shape) not in (1, 2):
        raise PushError(f"{REQUIRED[0]} has shape {list(token_shape)}.", remedy=PACKED_OR_PADDED)
    uncut = columns.side is not None and len(token_shape) == 1 and "cu_seqlens" not in tensors
    sequences = 1 if uncut else _sequences(tensors, token_shape)
    layout = StepLayout(token_shape, sequences, tensors, uncut)
    for name, most, given in (
        ("tokens", MAX_TOKENS, prod(token_shape)),
        ("sequences", MAX_SEQUENCES, layout.sequences),
    ):
        if given > most:
            raise PushError(
                f"it has {given:,} {name}, accepted are {most:,}.",
                remedy="push each data-parallel rank's share as a file of its own.",
            )
    for tensor in tensors.values():
        _check_shape(tensor, layout)
    return layout


def _sequences(tensors: Mapping[str, StoredTensor], token_shape: tuple[int, ...]) -> int:
    needed, other = ("cu_seqlens", "mask") if len(token_shape) == 1 else ("mask", "cu_seqlens")
    if needed not in tensors:
        raise PushError(
            f"{REQUIRED[0]} has shape {list(token_shape)}, and there is no {needed}.",
            remedy=PACKED_OR_PADDED,
        )
    if len(token_shape) == 1:
        return max(0, tensors["cu_seqlens"].elements - 1)
    if other in tensors:
        raise PushError(
            f"{REQUIRED[0]} is padded, {list(token_shape)}, and there is a {other} as well.",
            remedy=PACKED_OR_PADDED,
        )
    return token_shape[0]


def _without_ones(tensor: StoredTensor, tensors: Mapping[str, StoredTensor]) -> StoredTensor:
    """[1, tokens] beside cu_seqlens, [sequences, longest, 1], [sequences, 1]: as the client."""
    rule, shape = RULES[tensor.name], tensor.shape
    inner = shape[len(shape) - rule.inner_dimensions :] if rule.inner_dimensions else ()
    outer = shape[: len(shape) - len(inner)]
    if rule.per != "token" or "cu_seqlens" in tensors:
        if len(outer) == 2 and 1 in outer:
            outer = (prod(outer),)
    elif len(outer) == 3 and outer[2] == 1 and not inner:
        outer = outer[:2]
    return replace(tensor, shape=outer + inner)


def counted_per(tensor: StoredTensor, layout: StepLayout) -> str:
    """Token, sequence or limit: as its rule says, unless it is one of those that may be either."""
    rows = ((layout.sequences,), (layout.sequences, 1))
    if tensor.name in ONE_FOR_ALL and tensor.shape in rows and tensor.shape != layout.token_shape:
        return "sequence"
    if tensor.name == VERSION and tensor.shape == layout.token_shape != rows[0]:
        return "token"
    return RULES[tensor.name].per


def _check_shape(tensor: StoredTensor, layout: StepLayout) -> None:
    rule, per = RULES[tensor.name], counted_per(tensor, layout)
    if rule.per == "token" and per == "sequence":
        return
    if rule.per == "prompt":  # held against prompt_lengths once they are read
        if len(tensor.shape) != 1:
            raise PushError(
                f"{tensor.name} has shape {list(tensor.shape)}; accepted is a flat one.",
                remedy="leave padding out: prompt_ids[prompt_mask], with prompt_lengths.",
            )
        return
    counted: dict[str, tuple[int, ...]] = {
        "token": layout.token_shape,
        "sequence": (layout.sequences,),
        "limit": (layout.sequences + 1,),
    }
    expected = counted[per]
    leading = tensor.shape[: len(expected)]
    if leading != expected or len(tensor.shape) != len(expected) + rule.inner_dimensions:
        names = [*map(str, expected), *("layers", "k")[: rule.inner_dimensions]]
        raise PushError(
            f"{tensor.name} has shape {list(tensor.shape)}; to fit {REQUIRED[0]} it needs "
            f"[{', '.join(names)}].",
            remedy=_shape_remedy(tensor, layout),
        )


def _shape_remedy(tensor: StoredTensor, layout: StepLayout) -> str:
    if RULES[tensor.name].per == "token" and len(tensor.shape) == 1 and not layout.padded:
        return count_remedy(tensor.name, tensor.elements, layout.token_shape[0], layout.sequences)
    if len(tensor.shape) == 2 and layout.padded and tensor.shape[0] == layout.sequences:
        return (
            "give both sides the same columns; where one leaves out the first or the last token "
            "(logits[:, :-1]), cut the other alike."
        )
    return f"give {tensor.name} one entry per {RULES[tensor.name].per}, of the same step."


def read_safetensors_step(path: Path, columns: ColumnNames = AS_THEY_ARE) -> PushedStep:
    """The whole header is checked before any tensor is read. Peak memory: three times the file."""
    with path.open("rb") as stream:
        header = read_header(stream, columns)
        layout = step_layout(header.tensors, columns)
        tensors = {name: _read(stream, tensor) for name, tensor in layout.tensors.items()}
    return pushed_step(flat(tensors, layout), header.metadata)


def _read(stream: BinaryIO, tensor: StoredTensor) -> NDArray[Any]:
    stream.seek(tensor.begin)
    values = np.fromfile(stream, dtype=STORED_AS[tensor.dtype], count=tensor.elements)
    if values.size != tensor.elements:
        raise PushError(
            f"it ends within {tensor.name}: it was shortened while it was read.",
            remedy="send it again when it is complete.",
        )
    return converted(tensor.name, values.reshape(tensor.shape), tensor.dtype)


def flat(tensors: dict[str, NDArray[Any]], layout: StepLayout) -> dict[str, NDArray[Any]]:
    """[tokens] tensors with cu_seqlens."""
    if layout.uncut:
        return {**tensors, "cu_seqlens": np.array([0, layout.token_shape[0]], np.int64)}
    return packed(tensors, layout) if layout.padded else tensors


def packed(tensors: dict[str, NDArray[Any]], layout: StepLayout) -> dict[str, NDArray[Any]]:
    """[sequences, longest, …] → [tokens, …] from each row's first to its last unmasked token."""
    rows, longest = layout.token_shape
    limits = np.arange(rows + 1, dtype=np.int64) * longest
    span = response_span(as_mask(tensors["mask"]).reshape(-1), limits)
    kept = {
        name: tensor.reshape(rows * longest, *tensor.shape[2:])[span.keep]
        if counted_per(layout.tensors[name], layout) == "token"
        else tensor
        for name, tensor in tensors.items()
    }
    return {**kept, "cu_seqlens": span.cu_seqlens}
