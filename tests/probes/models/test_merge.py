"""An adapter merged into its base, against the same sum in torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from driftscope_probes.errors import ModelError
from driftscope_probes.models.adapter import Adapter, read_adapter
from driftscope_probes.models.folder import describe
from driftscope_probes.models.merge import MergeDtype, merge

RANK, ALPHA = 4, 8
MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.2.mlp.down_proj")
TORCH = {"fp32": torch.float32, "bf16": torch.bfloat16}


def adapter_of(base: Path, folder: Path, **config: object) -> Adapter:
    """On two layers of the tiny Llama, as PEFT writes it."""
    weights = load_file(base / "model.safetensors")
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for module in MODULES:
        outputs, inputs = weights[f"{module}.weight"].shape
        a, b = torch.Size((RANK, inputs)), torch.Size((outputs, RANK))
        prefix = f"base_model.model.{module}.lora_"
        tensors[f"{prefix}A.weight"] = torch.randn(a, generator=generator)
        tensors[f"{prefix}B.weight"] = torch.randn(b, generator=generator) * 0.01
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    said = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, **config}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return read_adapter(str(folder))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_sum_is_in_float32_and_rounded_once(
    tiny_llama: Path, tmp_path: Path, dtype: MergeDtype
) -> None:
    adapter = adapter_of(tiny_llama, tmp_path / "lora")
    merged = merge(tiny_llama, adapter, dtype, tmp_path / "merged")
    base, found = (load_file(folder / "model.safetensors") for folder in (tiny_llama, merged))
    lora = load_file(adapter.weights)
    assert found.keys() == base.keys()
    for name, weight in base.items():
        expected = weight.float()
        a = lora.get(f"base_model.model.{name.removesuffix('.weight')}.lora_A.weight")
        if a is not None:
            b = lora[f"base_model.model.{name.removesuffix('.weight')}.lora_B.weight"]
            expected = expected + (b.double() @ a.double() * (ALPHA / RANK)).float()
        assert found[name].dtype == TORCH[dtype]
        if a is None:
            assert torch.equal(found[name], weight.to(TORCH[dtype]))
        else:
            # A product of rank 4 in another order: last bits of float32 terms below 0.5 differ.
            apart = (found[name].double() - expected.double()).abs()
            step = 2.0**-8 if dtype == "bf16" else 2.0**-24
            assert (apart <= step * expected.double().abs() + 1e-7).all()
            assert not torch.equal(found[name].float(), weight.float())
    config = json.loads((merged / "config.json").read_text())
    assert config["dtype"] == str(TORCH[dtype]).removeprefix("torch.")
    assert describe(merged, name="merged", origin="folder").dtype == dtype  # a whole model


def test_an_adapter_of_another_model_is_refused(
    tiny_llama: Path, tiny_moe: Path, tmp_path: Path
) -> None:
    adapter = adapter_of(tiny_llama, tmp_path / "lora")
    with pytest.raises(ModelError, match=r"no weight of it is of model.layers.2.mlp.down_proj"):
        merge(tiny_moe, adapter, "fp32", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_conv1d_holds_inputs_first(tiny_llama: Path, tmp_path: Path) -> None:
    """fan_in_fan_out: the delta is transposed, which does not fit a Linear's [out, in]."""
    adapter = adapter_of(tiny_llama, tmp_path / "lora", fan_in_fan_out=True)
    with pytest.raises(ModelError, match=r"down_proj is \[128, 384\], the adapter's is \[384, 128"):
        merge(tiny_llama, adapter, "fp32", tmp_path / "merged")
