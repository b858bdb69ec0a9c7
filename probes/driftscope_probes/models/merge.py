"""A LoRA adapter merged into its base: the folder that an engine without LoRA would load.

In: a base model's folder, an adapter, a dtype. Out: a folder in that dtype. Free of torch.

Every adapted weight is W + scale · (B · A), summed in float32 and rounded to the dtype once, to
nearest even; all other weights are the base's, in the same dtype. That is what PEFT's
merge_and_unload leaves of a base held in this dtype with its adapter in float32 (`weight.data +=
delta`; torch adds in float32). safe_merge, and an adapter held in bfloat16, round B · A before.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.errors import ModelError
from driftscope_probes.models.adapter import CONFIG_LIMIT as ADAPTER_CONFIG_LIMIT
from driftscope_probes.models.adapter import AdaptedLayer, Adapter
from driftscope_probes.models.checks import (
    ADAPTER_CONFIG_NAME,
    CONFIG_LIMIT,
    CONFIG_NAME,
    INDEX_NAME,
    WEIGHTS_NAME,
    weight_files,
)
from driftscope_probes.models.folder import TEXT_SUFFIXES
from driftscope_probes.models.json_file import read_json, write_json
from driftscope_probes.models.safetensors_file import (
    PlannedTensor,
    StoredTensor,
    read_tensors,
    write,
)

MergeDtype = Literal["fp32", "bf16"]
#: As config.json says it.
CONFIG_DTYPES: Final[dict[MergeDtype, str]] = {"fp32": "float32", "bf16": "bfloat16"}


def folder_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a model folder by name. Raises ModelError."""
    found: dict[str, StoredTensor] = {}
    for file in weight_files(folder):
        found |= read_tensors(file)
    return found


def merge(base: Path, adapter: Adapter, dtype: MergeDtype, target: Path) -> Path:
    """`target`, a new folder with base and adapter merged. Raises ModelError."""
    tensors = folder_tensors(base)
    matrices = read_tensors(adapter.weights)
    config = read_json(adapter.path / ADAPTER_CONFIG_NAME, ADAPTER_CONFIG_LIMIT)
    transposed = bool(config.get("fan_in_fan_out"))
    deltas = {
        _weight_of(layer, tensors, adapter, base): _Delta(layer, matrices, transposed)
        for layer in adapter.layers
    }
    for name, delta in deltas.items():
        _check_shape(tensors[name], delta, adapter)
    planned = [_planned(name, tensor, deltas.get(name)) for name, tensor in tensors.items()]
    try:
        target.mkdir(parents=True)
        _copy_texts(base, dtype, target)
        write(target / WEIGHTS_NAME, planned, dtype)
    except OSError as error:
        raise ModelError(
            f"{adapter.path.name} merged could not be written to {target}: {error}.",
            remedy="Free space, or write the report to another disk.",
        ) from error
    return target


class _Delta:
    """scale · (B · A) of one layer, in float32."""

    def __init__(
        self, layer: AdaptedLayer, matrices: dict[str, StoredTensor], transposed: bool
    ) -> None:
        self.layer, self._transposed = layer, transposed
        self._a, self._b = matrices[layer.a], matrices[layer.b]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight that it is added to: Conv1D (GPT-2) holds [in, out]."""
        shape = (self._b.shape[0], self._a.shape[1])
        return shape[::-1] if self._transposed else shape

    def values(self) -> NDArray[np.float32]:
        product = (self._b.values() @ self._a.values()) * np.float32(self.layer.scale)
        return product.T if self._transposed else product


def _planned(name: str, tensor: StoredTensor, delta: _Delta | None) -> PlannedTensor:
    def values() -> NDArray[np.float32]:
        own = tensor.values()
        return own if delta is None else own + delta.values()

    return PlannedTensor(name, tensor.shape, values)


def _weight_of(
    layer: AdaptedLayer, tensors: dict[str, StoredTensor], adapter: Adapter, base: Path
) -> str:
    """A checkpoint may leave the first names of a module out: GPT-2's has no `transformer.`."""
    name = f"{layer.module}.weight"
    while name not in tensors:
        _, dot, name = name.partition(".")
        if not dot:
            raise ModelError(
                f"{adapter.path.name} is not an adapter of {base.name}: no weight of it is of "
                f"{layer.module}.",
                remedy=f"Give the adapter's base as --model; it names {adapter.base!r}.",
            )
    return name


def _check_shape(tensor: StoredTensor, delta: _Delta, adapter: Adapter) -> None:
    if tensor.shape != delta.shape:
        raise ModelError(
            f"{adapter.path.name} is not an adapter of this model: {delta.layer.module} is "
            f"{list(tensor.shape)}, the adapter's is {list(delta.shape)}.",
            remedy=f"Give the adapter's base as --model; it names {adapter.base!r}.",
        )


def _copy_texts(base: Path, dtype: MergeDtype, target: Path) -> None:
    """Config, tokenizer and the like; not the index of the base's own shards."""
    for path in base.iterdir():
        if path.name.endswith(TEXT_SUFFIXES) and path.name not in (CONFIG_NAME, INDEX_NAME):
            shutil.copyfile(path, target / path.name)
    config = read_json(base / CONFIG_NAME, CONFIG_LIMIT)
    config.pop("torch_dtype", None)  # the name of `dtype` before transformers 5
    write_json(target / CONFIG_NAME, {**config, "dtype": CONFIG_DTYPES[dtype]})
