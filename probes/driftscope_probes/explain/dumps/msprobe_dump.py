"""msprobe's form: `dump.json` with statistics of every module's inputs and outputs, numpy beside.

In: the folder of one step and rank. Out: pieces where `dump_tensor_data/*.npy` are there, and
statistics. Layout (Ascend/msprobe, docs/en/user_guide/dump/pytorch_data_dump_instruct.md): an entry
`Module.<name>.<class>.forward.<call>` holds `input_args`, `input_kwargs`, `output`, `parameters`;
each tensor its type, dtype, shape, Max, Min, Mean, Norm, and `data_name` or, with CRC-32, `md5`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from driftscope_probes.errors import RequestError
from driftscope_probes.explain.dumps.base import FACTS, NUMBERS, Piece, RawDump, Statistics
from driftscope_probes.explain.dumps.files import check_size, json_of
from driftscope_probes.explain.dumps.names import is_gemma, keys_of
from driftscope_probes.explain.sites import Place

INDEX: Final = "dump.json"
DATA_FOLDER: Final = "dump_tensor_data"
#: numpy has no bfloat16: MindSpore's are stored as float32, and dump.json says what they were.
_BF16: Final = frozenset({"torch.bfloat16", "BFloat16"})
_FORWARD = re.compile(r"^(?:Module|Cell)\.(.+)\.[^.]+\.forward\.(\d+)$")


def is_msprobe(files: Sequence[Path]) -> bool:
    return any(path.name == INDEX for path in files)


def read_msprobe(folder: Path, files: Sequence[Path]) -> RawDump:
    """Raises RequestError: several steps or ranks, a damaged index or array, a name with a path."""
    indexes = [path for path in files if path.name == INDEX]
    if len(indexes) > 1:
        raise RequestError(
            f"{folder} holds {len(indexes)} dumps of msprobe (steps or ranks).",
            remedy=f"compare one step of one rank: give {indexes[0].parent}.",
        )
    index = json_of(indexes[0])
    data = index.get("data")
    if not isinstance(data, dict):
        raise RequestError(
            f"{indexes[0]} has no object `data`.",
            remedy="give the dump.json that msprobe wrote, with its folder dump_tensor_data.",
        )
    return _Reader(indexes[0].parent / DATA_FOLDER).read(data)


class _Reader:
    def __init__(self, arrays: Path) -> None:
        self._arrays = arrays
        self._steps: dict[int, dict[str, Piece]] = {}
        self._statistics: dict[str, dict[int, Statistics]] = {}
        self._weights: dict[str, Piece] = {}
        self._uncovered: set[str] = set()
        self._other = 0

    def read(self, data: Mapping[str, Any]) -> RawDump:
        calls = {name: _FORWARD.match(name) for name in data}
        modules = {call[1] for call in calls.values() if call is not None}
        gemma = is_gemma(modules)
        for name, call in calls.items():
            if call is None:  # functions, gradients
                self._other += 1
            elif isinstance(data[name], dict):
                self._module(call[1], int(call[2]), data[name], gemma=gemma)
        if self._other:
            self._uncovered.add(f"{self._other} entries that are no module's forward")
        return RawDump(
            form="msprobe",
            steps=tuple(self._steps[step] for step in sorted(self._steps)),
            weights=self._weights,
            uncovered=tuple(sorted(self._uncovered)),
            statistics={
                Place.of_key(key): tuple(by_step[step] for step in sorted(by_step))
                for key, by_step in self._statistics.items()
                if key not in FACTS
            },
        )

    def _module(self, module: str, step: int, entry: Mapping[str, Any], *, gemma: bool) -> None:
        ends: dict[str, Mapping[str, Any]] = {}
        for part, name in (("input_args", "inputs"), ("output", "output")):
            given = entry.get(part)
            tensors = [one for one in given if _is_tensor(one)] if isinstance(given, list) else []
            single = name == "output" and len(tensors) == 1
            for position, tensor in enumerate(tensors):
                ends[name if single else f"{name}.{position}"] = tensor
        keys = keys_of(module, ends, gemma=gemma)
        if not keys:
            self._uncovered.add(module)
        for end, key in keys.items():
            self._keep(key, step, ends[end])
        parameters = entry.get("parameters")
        for name, tensor in (parameters if isinstance(parameters, dict) else {}).items():
            piece = self._piece(tensor) if _is_tensor(tensor) else None
            if piece is not None:
                self._weights[f"{module}.{name}"] = piece

    def _keep(self, key: str, step: int, tensor: Mapping[str, Any]) -> None:
        piece = self._piece(tensor)
        if piece is not None:
            self._steps.setdefault(step, {}).setdefault(key, piece)
        shape = tensor.get("shape")
        self._statistics.setdefault(key, {})[step] = Statistics(
            shape=tuple(shape) if isinstance(shape, list) else (),
            dtype=str(tensor.get("dtype")),
            numbers={
                name: float(tensor[name])
                for name in NUMBERS
                if isinstance(tensor.get(name), int | float)
            },
            crc=tensor["md5"] if isinstance(tensor.get("md5"), str) else None,
        )

    def _piece(self, tensor: Mapping[str, Any]) -> Piece | None:
        """None where only statistics were kept."""
        name = tensor.get("data_name")
        if not isinstance(name, str) or not name:
            return None
        if Path(name).name != name:
            raise RequestError(
                f"dump.json names the file {name!r}, which is not a name within {DATA_FOLDER}.",
                remedy="give a dump as msprobe wrote it.",
            )
        path = (self._arrays / name).with_suffix(".npy")
        if not path.exists():
            return None
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            stored = torch.from_numpy(np.empty(0, array.dtype)).dtype
        except (ValueError, TypeError, EOFError, OSError) as error:
            raise RequestError(
                f"{path} is not a numpy array, or not a whole one: {error}",
                remedy="dump it again; arrays of Python objects are not read.",
            ) from error
        check_size(name, array.nbytes)
        bf16 = stored == torch.float32 and str(tensor.get("dtype")) in _BF16
        return Piece(tuple(array.shape), torch.bfloat16 if bf16 else stored, _reader(path, bf16))


def _is_tensor(entry: Any) -> bool:
    return isinstance(entry, dict) and str(entry.get("type", "")).endswith("Tensor")


def _reader(path: Path, bf16: bool) -> Callable[[], Tensor]:
    def read() -> Tensor:
        tensor = torch.from_numpy(np.load(path, allow_pickle=False))
        return tensor.to(torch.bfloat16) if bf16 else tensor

    return read
