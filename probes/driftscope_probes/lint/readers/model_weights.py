"""Headers of a model's safetensors files → what config.json does not say. No weight is read.

In: a folder. Out: settings; nothing for a folder without safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from driftscope_probes.lint.base import Setting, Settings
from driftscope_probes.lint.readers import values

INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"
#: The index of the largest published models (160,000 tensors) has 15 MB.
LARGEST_INDEX: Final = 20 * 1024**2
#: A header of one file; safetensors itself refuses more than 100 MB.
LARGEST_HEADER: Final = 8 * 1024**2
_LENGTH_BYTES: Final = 8
_ROUTER_BIAS: Final = ("e_score_correction_bias", "expert_bias")
_KV_SCALES: Final = (".k_scale", ".v_scale", ".kv_scale")
_HEADS: Final = ("lm_head.weight", "output.weight", "embed_out.weight")


def weights_settings(folder: Path) -> Settings:
    return Settings(tuple(_found(folder)))


def _found(folder: Path) -> Iterator[Setting]:
    files = _files_of_tensors(folder)
    if not files:
        return
    where = str(folder / (INDEX if len(set(files.values())) > 1 else SINGLE))
    heads = [name for name in files if name.endswith(_HEADS)]
    yield Setting("model.head_stored", bool(heads), f"{where}: {heads[0] if heads else 'lm_head'}")
    scales = next((name for name in files if name.endswith(_KV_SCALES)), None)
    if scales is not None:
        yield Setting("model.kv_scales", True, f"{where}: {scales}")
    bias = next((name for name in files if name.endswith(_ROUTER_BIAS)), None)
    if bias is not None:
        kept = values.dtype(_header(folder / files[bias]).get(bias, {}).get("dtype"))
        if kept is not None:
            yield Setting("model.router_bias_dtype", kept, f"{folder / files[bias]}: {bias}")
    first = folder / next(iter(files.values()))
    stored = _dtype_of_most(_header(first))
    if stored is not None:
        yield Setting("model.stored_dtype", stored, str(first))


def _files_of_tensors(folder: Path) -> dict[str, str]:
    """Tensor → file of the folder. A name that leads elsewhere is left out."""
    index = folder / INDEX
    if index.is_file() and index.stat().st_size <= LARGEST_INDEX:
        found = _object(index.read_bytes()).get("weight_map")
        pairs = found.items() if isinstance(found, dict) else ()
        return {
            tensor: file
            for tensor, file in pairs
            if isinstance(file, str) and "/" not in file and "\\" not in file
        }
    return dict.fromkeys(_header(folder / SINGLE), SINGLE)


def _header(file: Path) -> dict[str, Any]:
    """Empty for what is missing, damaged or too long."""
    if not file.is_file():
        return {}
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if length > LARGEST_HEADER:
            return {}
        found = _object(stream.read(length))
    return {name: of for name, of in found.items() if isinstance(of, dict) and "dtype" in of}


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _dtype_of_most(header: Mapping[str, Mapping[str, Any]]) -> str | None:
    elements: dict[str, int] = {}
    for tensor in header.values():
        shape, kept = tensor.get("shape"), values.dtype(tensor.get("dtype"))
        if kept is not None and isinstance(shape, list) and all(type(n) is int for n in shape):
            elements[kept] = elements.get(kept, 0) + math.prod(shape)
    return max(elements, key=lambda kept: elements[kept]) if elements else None
