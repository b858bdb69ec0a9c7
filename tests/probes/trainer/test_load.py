import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file

from driftscope_probes.dtypes import DTYPES, Dtype
from driftscope_probes.errors import ModelError
from driftscope_probes.trainer.load import load_model, torch_dtype
from driftscope_probes.trainer.settings import Attention, TrainerSettings


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("weights", DTYPES)
def test_the_model_is_ready_to_train(
    llama_folder: Path, weights: Dtype, attention: Attention
) -> None:
    loaded = load_model(str(llama_folder), "tiny", weights, TrainerSettings(attention=attention))
    assert loaded.model.training
    assert loaded.model.config._attn_implementation == attention
    parameters = list(loaded.model.parameters())
    assert all(parameter.requires_grad for parameter in parameters)
    assert {parameter.dtype for parameter in parameters} == {torch_dtype(weights)}
    assert loaded.vocabulary == loaded.model.config.vocab_size


def drop_a_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def pickle_only(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")


def remote_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "mine"
    config["auto_map"] = {
        "AutoConfig": "mine.MineConfig",
        "AutoModelForCausalLM": "mine.MineForCausalLM",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("raise SystemExit('remote code ran')\n")


@pytest.mark.parametrize("damage", [drop_a_tensor, truncate, pickle_only, remote_code])
def test_a_folder_that_cannot_be_trusted_is_refused(
    llama_folder: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = copytree(llama_folder, tmp_path / "model")
    damage(folder)
    with pytest.raises(ModelError):
        load_model(str(folder), "damaged", "fp32", TrainerSettings())


def test_missing_weights_are_named(llama_folder: Path, tmp_path: Path) -> None:
    folder = copytree(llama_folder, tmp_path / "model")
    drop_a_tensor(folder)
    with pytest.raises(ModelError, match=r"lacks 1 weights.*model.layers.1.mlp.up_proj.weight"):
        load_model(str(folder), "damaged", "fp32", TrainerSettings())
