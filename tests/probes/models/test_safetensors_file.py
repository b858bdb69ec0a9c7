"""Against the safetensors library, and against damaged files."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import safe_open

from driftscope_probes.errors import ModelError
from driftscope_probes.models.safetensors_file import (
    HEADER_LIMIT,
    MasterDtype,
    PlannedTensor,
    read_table,
    write,
)


def planned(**arrays: NDArray[np.float32]) -> list[PlannedTensor]:
    def one(name: str, array: NDArray[np.float32]) -> PlannedTensor:
        return PlannedTensor(name, array.shape, lambda: array)

    return [one(name, array) for name, array in arrays.items()]


@pytest.fixture
def arrays() -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(1)
    return {
        "matrix": random.standard_normal((5, 3), dtype=np.float32),
        "row": random.standard_normal(7, dtype=np.float32),
        "transposed": random.standard_normal((2, 4), dtype=np.float32).T,
    }


@pytest.fixture
def written(tmp_path: Path, arrays: dict[str, NDArray[np.float32]]) -> Path:
    path = tmp_path / "model.safetensors"
    write(path, planned(**arrays), "bf16")
    return path


def test_fp32_is_read_back_exactly(tmp_path: Path, arrays: dict[str, NDArray[np.float32]]) -> None:
    path = tmp_path / "model.safetensors"
    write(path, planned(**arrays), "fp32")
    with safe_open(path, framework="np") as opened:
        assert opened.metadata() == {"format": "pt"}
        assert set(opened.keys()) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(opened.get_tensor(name), array)


def test_bf16_is_what_torch_rounds_to(
    written: Path, arrays: dict[str, NDArray[np.float32]]
) -> None:
    import torch
    from safetensors.torch import load_file

    loaded = load_file(written)
    for name, array in arrays.items():
        assert torch.equal(loaded[name], torch.from_numpy(array).to(torch.bfloat16))


@pytest.mark.parametrize(("dtype", "name"), [("bf16", "BF16"), ("fp32", "F32")])
def test_table(
    tmp_path: Path, arrays: dict[str, NDArray[np.float32]], dtype: MasterDtype, name: str
) -> None:
    path = tmp_path / "model.safetensors"
    write(path, planned(**arrays), dtype)
    table = read_table(path)
    assert table.parameters == {name: 15 + 7 + 8}
    assert table.names == ("matrix", "row", "transposed")


def test_table_of_a_file_that_the_library_wrote(
    tmp_path: Path, arrays: dict[str, NDArray[np.float32]]
) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "model.safetensors"
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file({**contiguous, "mask": np.ones(4, np.uint8)}, path)
    assert read_table(path).parameters == {"F32": 30, "U8": 4}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(share=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_refused(written: Path, share: float) -> None:
    whole = written.read_bytes()
    cut = written.with_name("cut.safetensors")
    cut.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError):
        read_table(cut)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, 300), value=st.integers(0, 255))
def test_a_changed_byte_never_escapes_as_another_error(
    written: Path, position: int, value: int
) -> None:
    content = bytearray(written.read_bytes())
    content[position % len(content)] = value
    changed = written.with_name("changed.safetensors")
    changed.write_bytes(content)
    try:
        read_table(changed)
    except ModelError as error:
        assert str(changed) in error.message


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {},
        {"dtype": "F32", "shape": [2], "data_offsets": [0]},
        {"dtype": 3, "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": ["0", "8"]},
    ],
)
def test_malformed_entry(tmp_path: Path, entry: object) -> None:
    header = json.dumps({"weight": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ModelError, match="'weight' is malformed"):
        read_table(path)


def test_header_length_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", HEADER_LIMIT + 1))
        stream.truncate(HEADER_LIMIT + 1000)
    with pytest.raises(ModelError, match="header claims"):
        read_table(path)


def test_git_lfs_pointer(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ModelError, match="Git LFS pointer") as caught:
        read_table(path)
    assert "git lfs pull" in caught.value.remedy
