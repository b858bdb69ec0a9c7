from pathlib import Path

import pytest

from driftscope_probes.errors import ModelError
from driftscope_probes.models.checks import INDEX_NAME, weight_files
from driftscope_probes.models.json_file import write_json

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    write_json(tmp_path / INDEX_NAME, {"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}})
    for name in SHARDS:
        (tmp_path / name).touch()
    return tmp_path


def names(folder: Path) -> tuple[str, ...]:
    return tuple(path.name for path in weight_files(folder))


def test_one_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    assert names(tmp_path) == ("model.safetensors",)


def test_shards(sharded: Path) -> None:
    assert names(sharded) == SHARDS


def test_pickles_beside_safetensors_are_ignored(sharded: Path) -> None:
    (sharded / "pytorch_model.bin").touch()
    assert names(sharded) == SHARDS


def test_missing_shard(sharded: Path) -> None:
    (sharded / SHARDS[1]).unlink()
    with pytest.raises(ModelError, match=f"lacks 1 of 2 shards, the first is {SHARDS[1]}"):
        weight_files(sharded)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.ckpt", "model.pkl"]
)
def test_pickles_alone_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ModelError, match=f"only as {name}, a pickle") as caught:
        weight_files(tmp_path)
    assert "save_pretrained" in caught.value.remedy


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has neither model\.safetensors nor"):
        weight_files(tmp_path)


def test_two_sets(sharded: Path) -> None:
    (sharded / "model.safetensors").touch()
    with pytest.raises(ModelError, match="two sets of weights"):
        weight_files(sharded)


def test_a_second_file_without_an_index(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(ModelError, match="two sets of weights"):
        weight_files(tmp_path)


def test_files_outside_the_index_are_not_loaded_by_anyone(sharded: Path) -> None:
    (sharded / "consolidated.safetensors").touch()
    assert names(sharded) == SHARDS


@pytest.mark.parametrize("shard", ["../secret.safetensors", "a/b.safetensors", "model.bin", 3])
def test_a_shard_elsewhere(tmp_path: Path, shard: object) -> None:
    write_json(tmp_path / INDEX_NAME, {"weight_map": {"a": shard}})
    with pytest.raises(ModelError, match="as a shard"):
        weight_files(tmp_path)


@pytest.mark.parametrize("weight_map", [{}, [], None])
def test_an_index_without_shards(tmp_path: Path, weight_map: object) -> None:
    write_json(tmp_path / INDEX_NAME, {"weight_map": weight_map})
    with pytest.raises(ModelError, match="names no shards"):
        weight_files(tmp_path)
