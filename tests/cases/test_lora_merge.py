"""LoRA merged in BF16 (TRL 6688, NeMo-RL 3696, SkyRL 1776): the engine runs the merged weights, the
trainer base + adapter. The adapter and the merge are made here, from the tiny model.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_pair
from safetensors.torch import load_file, save_file

from .command_line import printed, run

RANK, ALPHA = 8, 16
TARGETS = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
#: Deltas of the size of a trained adapter: a tenth of the weights, far above BF16's last bit.
SIZE = 0.1


@pytest.fixture
def made(tiny_llama: Path, tmp_path: Path) -> tuple[Path, Path]:
    """(adapter, merged in BF16), as PEFT writes the one and merge_and_unload the other."""
    base = load_file(tiny_llama / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    adapter, merged = {}, dict(base)
    for name, weight in base.items():
        module = name.removesuffix(".weight")
        if not module.endswith(TARGETS):
            continue
        outputs, inputs = weight.shape
        a = torch.randn(RANK, inputs, generator=generator) / inputs**0.5
        b = torch.randn(outputs, RANK, generator=generator) * float(weight.float().std()) * SIZE
        adapter[f"base_model.model.{module}.lora_A.weight"] = a
        adapter[f"base_model.model.{module}.lora_B.weight"] = b
        merged[name] = (weight.float() + ALPHA / RANK * (b @ a)).to(weight.dtype)
    folder = tmp_path / "lora"
    folder.mkdir()
    save_file(adapter, folder / "adapter_model.safetensors", {"format": "pt"})
    names = [target.rpartition(".")[2] for target in TARGETS]
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": names}
    config["base_model_name_or_path"] = str(tiny_llama)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    whole = tmp_path / "merged"
    shutil.copytree(tiny_llama, whole)
    save_file(merged, whole / "model.safetensors", {"format": "pt"})
    return folder, whole


def arguments(engine_dtype: str, trainer_dtype: str, *others: str) -> list[str]:
    chosen = ["probe", "paired", "--engine", "hf", "--engine-dtypes", engine_dtype]
    chosen += ["--trainer-dtypes", trainer_dtype, "--prompts", "4", "--max-tokens", "16"]
    chosen += ["--threads", "1", "--batch-size", "1", "--no-chat-template", "--no-headroom"]
    return [*chosen, "--resamples", "0", *others]


@pytest.mark.slow
def test_the_merge_is_the_weights_part(made: tuple[Path, Path], tmp_path: Path) -> None:
    """In FP32 everywhere the arithmetic is exact beside what BF16 lost of the merged weights."""
    adapter, merged = made
    report = printed(
        *arguments("fp32", "fp32", "--model", str(merged), "--adapter", str(adapter)),
        *("--out", "report"),
        cwd=tmp_path,
    )
    found = report["weights"]
    (cell,) = found["cells"]
    weights, kernels = cell["parts"]
    assert (weights["name"], kernels["name"]) == ("weights", "kernels")
    assert weights["abs_diff_mean"] > 1e-4 > 1e-5 > kernels["abs_diff_mean"]
    assert weights["fraction"] == pytest.approx(1.0, abs=0.01)
    assert weights["fraction"] + kernels["fraction"] == pytest.approx(1.0, abs=1e-9)
    pair = load_pair(tmp_path / "report" / "pairs" / "fp32--fp32.safetensors")
    delta = pair["trainer_logprobs"].astype(np.float64) - pair["rollout_logprobs"]
    assert cell["abs_diff_mean"] == pytest.approx(np.abs(delta).mean(), rel=1e-12)
    assert "different weights" in found["sentence"] and "unmerged" in found["sentence"]
    assert report["grid"][0]["which_side"] is None
    assert report["grid"][0]["diagnosis"]["causes"][0]["name"] == "lora_merge_rounding"
    assert "Weights and kernels" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.slow
def test_the_trainer_computes_base_and_adapter(
    made: tuple[Path, Path], tiny_llama: Path, tmp_path: Path
) -> None:
    """An engine whose weights hold the exact sum differs by rounding of FP32 alone; one without
    the adapter by the adapter.
    """
    adapter, merged = made
    base = load_file(tiny_llama / "model.safetensors")
    exact = {name: weight.float() for name, weight in base.items()}
    tensors = load_file(adapter / "adapter_model.safetensors")
    for name, a in tensors.items():
        if ".lora_A." in name:
            module = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
            b = tensors[name.replace("lora_A", "lora_B")]
            exact[module] = exact[module] + ALPHA / RANK * (b @ a)
    save_file(exact, merged / "model.safetensors", {"format": "pt"})
    given = ("--adapter", str(adapter), "--trainer-model", "tiny-random-llama")
    both = printed(*arguments("fp32", "fp32", "--model", str(merged), *given), cwd=tmp_path)
    assert both["grid"][0]["comparison"]["abs_diff_mean"] < 1e-5
    without = arguments("fp32", "fp32", "--model", "tiny-random-llama", *given)
    forgot = printed(*without, "--out", "forgot", cwd=tmp_path)
    assert forgot["grid"][0]["comparison"]["abs_diff_mean"] > 0.01
    assert forgot["weights"]["cells"][0]["parts"][0]["fraction"] > 0.99
    assert forgot["grid"][0]["diagnosis"]["causes"][0]["name"] == "lora_not_applied"


@pytest.mark.slow
def test_our_merge_makes_what_a_merged_folder_makes(
    made: tuple[Path, Path], tiny_llama: Path, tmp_path: Path
) -> None:
    adapter, _ = made
    given = ("--model", str(tiny_llama), "--adapter", str(adapter))
    asked = arguments("fp32", "fp32", *given, "--engine-adapter", "merged-bf16", "--out", "report")
    report = printed(*asked, cwd=tmp_path)
    weights, kernels = report["weights"]["cells"][0]["parts"]
    assert weights["abs_diff_mean"] > 1e-3 > 1e-5 > kernels["abs_diff_mean"]
    assert report["grid"][0]["diagnosis"]["causes"][0]["name"] == "lora_merge_rounding"
    assert report["weights"]["engine_adapter"] == "merged-bf16"
    assert "merged and rounded to bf16" in report["weights"]["sentence"]
    assert "adapter in the engine" in (tmp_path / "report" / "report.html").read_text()
    assert not (tmp_path / "report" / "engine-merged").exists()


@pytest.mark.slow
def test_vllm_serves_the_adapter_unmerged(
    made: tuple[Path, Path], tiny_llama: Path, tmp_path: Path
) -> None:
    """The same weights on both sides, none rounded: in fp32 only the arithmetic is left."""
    adapter, _ = made
    given = ("--model", str(tiny_llama), "--adapter", str(adapter), "--engine-adapter", "unmerged")
    report = printed(*arguments("fp32", "fp32", "--engine", "vllm", *given), cwd=tmp_path)
    assert report["grid"][0]["comparison"]["abs_diff_mean"] < 1e-5
    assert report["grid"][0]["rollout"]["settings"]["lora"] == "lora"
    weights, kernels = report["weights"]["cells"][0]["parts"]
    assert weights["abs_diff_mean"] == 0.0 and kernels["fraction"] == 1.0
    assert "by vLLM's own LoRA" in report["weights"]["sentence"]


@pytest.mark.slow
def test_two_folders_and_what_the_terminal_says(made: tuple[Path, Path], tmp_path: Path) -> None:
    """In BF16 kernels have a part of their own."""
    _, merged = made
    done = run(
        *arguments("bf16", "bf16", "--model", str(merged)),
        *("--trainer-model", "tiny-random-llama"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "The two sides have different weights: the engine" in said
    assert "Weights and kernels bf16 × bf16: mean |Δ|" in said
    assert "of ΣΔ²" in said


def test_an_adapter_folder_is_no_model(made: tuple[Path, Path], tmp_path: Path) -> None:
    adapter, _ = made
    done = run("probe", "paired", "--model", str(adapter), cwd=tmp_path)
    assert done.returncode == 2
    assert "is a LoRA adapter" in done.stderr and "--adapter" in done.stderr
    assert "merge_and_unload" not in done.stderr


def test_a_base_that_is_not_here_is_asked_for(made: tuple[Path, Path], tmp_path: Path) -> None:
    adapter, merged = made
    config = json.loads((adapter / "adapter_config.json").read_text())
    text = json.dumps({**config, "base_model_name_or_path": "x"})
    (adapter / "adapter_config.json").write_text(text)
    done = run(
        *arguments("fp32", "fp32", "--model", str(merged), "--adapter", str(adapter)),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "the base model of lora, 'x'" in done.stderr and "--trainer-model" in done.stderr
