"""Two folders by tensor: each way in which an engine's weights may differ from the trainer's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from driftscope_probes.models.folder_difference import Kind, folder_difference
from driftscope_probes.models.safetensors_file import PlannedTensor, write

Values = NDArray[np.float32]
SHAPE = (64, 128)


def bf16(folder: Path, tensors: Mapping[str, Values]) -> Path:
    folder.mkdir()

    def planned(name: str, values: Values) -> PlannedTensor:
        return PlannedTensor(name, values.shape, lambda: values)

    write(folder / "model.safetensors", [planned(*pair) for pair in tensors.items()], "bf16")
    return folder


@pytest.fixture
def weights() -> Values:
    return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def quantised(values: Values, most: float, group: int) -> Values:
    groups = values.reshape(SHAPE[0], -1, group)
    scale = np.abs(groups).max(-1, keepdims=True) / most
    coarse: Values = (np.rint(groups / scale) * scale).reshape(SHAPE)
    return coarse


def test_every_kind_is_told_from_the_others(weights: Values, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    lost = weights.copy()
    lost[5] = 0.0
    engine = {
        "equal": weights,
        "lost": lost,
        "scaled": weights * np.float32(1.5),
        "coarser-int8": quantised(weights, 127.0, 128),
        "coarser-int4": quantised(weights, 7.0, 32),
        "changed-much": weights + random.standard_normal(SHAPE).astype(np.float32),
        # By the last bit of most: the hardest to tell from a coarser grid.
        "changed-little": weights * (1.0 + 2.0**-8 * random.choice([-1, 1], SHAPE)),
        "reshaped": weights[:32],
    }
    trainer = dict.fromkeys([*engine, "missing"], weights)
    float32 = {name: values.astype(np.float32) for name, values in engine.items()}
    found = folder_difference(bf16(tmp_path / "e", float32), bf16(tmp_path / "t", trainer))
    kinds: dict[str, Kind] = {tensor.name: tensor.kind for tensor in found.tensors}
    assert kinds == {name: name.partition("-")[0] for name in trainer}
    assert found.sentence.startswith("8 of 9 tensors differ: 2 coarser, 2 changed")
    assert [tensor.name for tensor in found.of("lost", "missing")] == ["lost", "missing"]


def test_a_float32_master_and_its_export(weights: Values, tmp_path: Path) -> None:
    """Rounding to bf16 is a step function, too, but has a name of its own; int8 packs cannot be
    compared by value."""
    master = tmp_path / "master"
    master.mkdir()
    save_file({"a": weights, "b": weights}, master / "model.safetensors")
    export = folder_difference(bf16(tmp_path / "e", {"a": weights, "b": weights}), master)
    assert {tensor.kind for tensor in export.tensors} == {"rounded"}
    assert all(0 < tensor.relative < 2.0**-8 for tensor in export.tensors)
    packed = tmp_path / "packed"
    packed.mkdir()
    save_file({"a": np.zeros(SHAPE, np.int8), "b": weights}, packed / "model.safetensors")
    kinds = [tensor.kind for tensor in folder_difference(packed, master).tensors]
    assert kinds == ["packed", "equal"]
