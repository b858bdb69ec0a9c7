"""vLLM in processes of its own: the adapter in every way, and a fresh engine's answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.live_engine import LiveEngine
from driftscope_probes.diagnosis.controls.registry import BY_NAME
from driftscope_probes.diagnosis.controls.sides import EngineChange
from driftscope_probes.engines.settings import EngineSettings

from .benches import HereEngine, HereTrainer, adapter, known_of, sides_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bench(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The engine has the adapter merged in bf16, both sides compute in float32."""
    work = tmp_path_factory.mktemp("live")
    sides = sides_of(
        tiny_llama,
        tiny_llama,
        "fp32",
        engine=EngineSettings(threads=1),
        adapter=adapter(tiny_llama, work / "lora"),
        engine_adapter="merged-bf16",
    )
    live = Bench(sides, LiveEngine(sides, work / "engine"), HereTrainer(sides), known_of(sides))
    yield live
    live.close()


def test_vllm_with_the_adapter_merged_or_beside_its_weights(bench: Bench) -> None:
    """What bf16 rounded away of the merged weights is gone in both ways."""
    assert bench.base.sigma > 1e-3
    unmerged = BY_NAME["adapter_unmerged"].run(bench)
    merged = BY_NAME["adapter_merged_fp32"].run(bench)
    assert (unmerged.outcome, merged.outcome) == ("clean", "clean")
    assert unmerged.value < 1e-5 and merged.value < 1e-5
    assert unmerged.value != merged.value  # two ways of computing it


def test_tokens_survive_the_merge(bench: Bench) -> None:
    found = BY_NAME["recorded_generation"].run(bench)
    assert found.outcome == "clean" and found.value >= 0.9


def test_vllms_routers_are_seen(tiny_moe: Path, tmp_path: Path) -> None:
    """In float32 they choose as transformers' do; rounding in bf16 turns few of the choices."""
    sides = sides_of(tiny_moe, tiny_moe, "fp32", engine=EngineSettings(threads=1))
    known = known_of(sides, mixture_of_experts=True)
    live = Bench(sides, LiveEngine(sides, tmp_path / "engine"), HereTrainer(sides), known)
    try:
        found = BY_NAME["routes_replayed"].run(live)
        assert found.outcome == "dirty" and found.value < 1e-5
        routed = live.routed(live.sample().sequences)
    finally:
        live.close()
    own = sides_of(tiny_moe, tiny_moe, "fp32")
    there = HereEngine(own, tmp_path / "here").rescore_routed(
        live.sample().sequences, EngineChange()
    )
    for ours, theirs in zip(routed.routes, there.routes, strict=True):
        assert np.array_equal(np.sort(ours, axis=-1), np.sort(theirs, axis=-1))


def fp8_folder(base: Path, target: Path) -> Path:
    """Matrices in e4m3 with a scale each, as llm-compressor and vLLM write them."""
    shutil.copytree(base, target)
    tensors = {}
    for name, values in load_file(base / "model.safetensors").items():
        if "proj" in name:
            scale = values.float().abs().max() / torch.finfo(torch.float8_e4m3fn).max
            tensors[name] = (values.float() / scale).to(torch.float8_e4m3fn)
            tensors[f"{name}_scale"] = scale.reshape(1)
        else:
            tensors[name] = values
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_fp8_weights_that_a_cpu_cannot_run(tiny_llama: Path, tmp_path: Path) -> None:
    """vLLM has no fp8 kernels on CPU: what the folder says is left."""
    quantised = fp8_folder(tiny_llama, tmp_path / "fp8")
    sides = sides_of(quantised, tiny_llama, engine=EngineSettings(threads=1))
    live = Bench(sides, LiveEngine(sides, tmp_path / "e"), HereTrainer(sides), known_of(sides))
    try:
        found = BY_NAME["unquantised"].run(live)
    finally:
        live.close()
    told = {item.what: item.value for item in found.evidence}
    assert (found.outcome, found.value) == ("clean", 21.0)
    assert told["quantization_config of the engine's folder"] == "fp8"
    assert "the engine on this machine" in told
