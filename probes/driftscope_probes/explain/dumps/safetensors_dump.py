"""Our own form: safetensors files, one forward pass each, in the order of their names.

A tensor is named as its place (`3.q_proj`), or after a module with which of its inputs or outputs
it is (`model.layers.3.self_attn.q_proj.output`); besides `tokens`, `positions`, `attention_mask`,
`cu_seqlens`, `logprob` and `weights.<parameter>`. `capture.json` may hold the model's config.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from driftscope_probes.errors import RequestError
from driftscope_probes.explain.dumps.base import WEIGHTS, Piece, RawDump
from driftscope_probes.explain.dumps.files import check_size, json_of, one_rank
from driftscope_probes.explain.dumps.names import is_gemma, keys_of, known_key

METADATA: Final = "capture.json"
#: Of what a module was given or gave.
_END = re.compile(r"^(.+)\.((?:inputs|output)(?:\.\w+)?)$")
#: By safetensors' names.
_DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_safetensors(folder: Path, files: list[Path]) -> RawDump:
    """Raises RequestError for a damaged file."""
    folder = one_rank(folder, "*.safetensors")
    given = [path for path in files if path.parent == folder and path.suffix == ".safetensors"]
    metadata = json_of(folder / METADATA) if (folder / METADATA).exists() else {}
    config = metadata.get("config", {})
    steps: list[dict[str, Piece]] = []
    weights: dict[str, Piece] = {}
    uncovered: set[str] = set()
    for path in given:
        pieces = _pieces(path)
        weights |= {
            name.removeprefix(WEIGHTS): piece
            for name, piece in pieces.items()
            if name.startswith(WEIGHTS)
        }
        rest = {name: piece for name, piece in pieces.items() if not name.startswith(WEIGHTS)}
        step, unknown = _keyed(rest)
        uncovered |= unknown
        if step:
            steps.append(step)
    return RawDump(
        form="safetensors",
        steps=tuple(steps),
        weights=weights,
        config=config if isinstance(config, dict) else {},
        uncovered=tuple(sorted(uncovered)),
    )


def _pieces(path: Path) -> dict[str, Piece]:
    try:
        with safe_open(path, framework="pt") as file:
            found = {}
            for name in file.keys():
                part = file.get_slice(name)
                shape = tuple(part.get_shape())
                dtype = _DTYPES.get(part.get_dtype())
                if dtype is None:
                    raise RequestError(
                        f"{path}: tensor {name} has the dtype {part.get_dtype()}.",
                        remedy=f"write one of {', '.join(_DTYPES)}.",
                    )
                check_size(name, prod(shape) * dtype.itemsize)
                found[name] = Piece(shape, dtype, _reader(path, name))
            return found
    except (SafetensorError, OSError) as error:
        raise RequestError(
            f"{path} is not a safetensors file, or not a whole one: {error}",
            remedy="capture it again, and give the folder only files that were written to the end.",
        ) from error


def _reader(path: Path, name: str) -> Callable[[], Tensor]:
    def read() -> Tensor:
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    return read


def _keyed(pieces: dict[str, Piece]) -> tuple[dict[str, Piece], set[str]]:
    """By key, and the names that are no place."""
    step: dict[str, Piece] = {}
    modules: dict[str, dict[str, Piece]] = {}
    uncovered = set()
    for name, piece in pieces.items():
        key, end = known_key(name), _END.match(name)
        if key is not None:
            step[key] = piece
        elif end is not None:
            modules.setdefault(end[1], {})[end[2]] = piece
        else:
            uncovered.add(name)
    gemma = is_gemma(modules)
    for module, ends in modules.items():
        keys = keys_of(module, ends, gemma=gemma)
        for which, key in keys.items():
            step.setdefault(key, ends[which])
        # A module whose tensors are known in part is not uncovered: the rest is seen elsewhere.
        if not keys:
            uncovered.add(module)
    return step, uncovered
