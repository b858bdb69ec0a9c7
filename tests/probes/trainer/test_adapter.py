"""The adapter beside its layers: the numbers of W + scale · B A, and whose it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from driftscope_probes.errors import ModelError
from driftscope_probes.models.adapter import read_adapter
from driftscope_probes.trainer.adapter import apply_adapter

RANK, ALPHA = 4, 12


def llama() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, num_attention_heads=4, **sizes)).eval()


def gpt2() -> Any:
    """Its linear layers are Conv1D, which hold [in, out]."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=4)).eval()


def folder_of(
    path: Path, module: str, inputs: int, outputs: int, **config: Any
) -> tuple[str, torch.Tensor]:
    """The folder, and scale · B A, [outputs, inputs]."""
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(RANK, inputs, generator=generator)
    b = torch.randn(outputs, RANK, generator=generator)
    names = (f"base_model.model.{module}.lora_{side}.weight" for side in "AB")
    save_file(dict(zip(names, (a, b), strict=True)), path / "adapter_model.safetensors")
    given = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, **config}
    (path / "adapter_config.json").write_text(json.dumps(given))
    return str(path), ALPHA / RANK * (b @ a)


@pytest.mark.parametrize(
    ("model", "module", "inputs", "outputs"),
    [
        (llama, "model.layers.0.mlp.up_proj", 32, 48),
        (gpt2, "transformer.h.0.attn.c_attn", 32, 96),
    ],
)
def test_beside_the_layer_it_is_the_merged_layer(
    tmp_path: Path, model: Any, module: str, inputs: int, outputs: int
) -> None:
    folder, delta = folder_of(tmp_path, module, inputs, outputs)
    merged, beside = model().double(), model().double()
    layer = merged.get_submodule(module)
    with torch.no_grad():
        layer.weight += (delta if layer.weight.shape == delta.shape else delta.T).double()
    apply_adapter(beside, read_adapter(folder))
    ids = torch.arange(12)[None]
    with torch.no_grad():
        exact, found = merged(ids).logits, beside(ids).logits
        without = model().double()(ids).logits
    # The adapter itself computes in float32.
    assert (exact - found).abs().max() < 1e-4
    assert (exact - without).abs().max() > 1e-2


def test_its_dropout_is_drawn_in_training_mode_only(tmp_path: Path) -> None:
    folder, _ = folder_of(tmp_path, "model.layers.0.mlp.up_proj", 32, 48, lora_dropout=0.5)
    model = llama()
    apply_adapter(model, read_adapter(folder))
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, model(ids).logits)
        model.train()
        assert not torch.equal(model(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("module", "inputs", "told"),
    [
        ("model.layers.7.mlp.up_proj", 32, "has no model.layers.7"),
        ("model.layers.0.mlp.up_proj", 33, "maps 32 features to 48, the adapter 33 to 48"),
        ("model.layers.0.input_layernorm", 32, "LlamaRMSNorm"),
        ("lm_head", 32, "output head"),
    ],
)
def test_an_adapter_of_another_model(tmp_path: Path, module: str, inputs: int, told: str) -> None:
    folder, _ = folder_of(tmp_path, module, inputs, 48)
    with pytest.raises(ModelError, match=told):
        apply_adapter(llama(), read_adapter(folder))
