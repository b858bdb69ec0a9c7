"""Which weights the trainer gets: never the engine's with an adapter on top by accident."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file

from driftscope_probes.errors import RequestError
from driftscope_probes.models.fetch import resolve
from driftscope_probes.models.folder import ModelFolder
from driftscope_probes.paired.request import PairedRequest
from driftscope_probes.paired.weights import MERGED_FOLDER, engine_weights, trainer_weights

MODULE = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def engine(tiny_llama: Path) -> ModelFolder:
    return resolve(str(tiny_llama))


def adapter_of(folder: Path, base: str | None) -> str:
    prefix = f"base_model.model.{MODULE}.lora_"
    shapes = {"A": (8, 128), "B": (128, 8)}
    tensors = {
        f"{prefix}{side}.weight": np.zeros(shape, np.float32) for side, shape in shapes.items()
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)


def request(**fields: Any) -> PairedRequest:
    return PairedRequest(model="engine", **fields)


def test_without_a_word_they_are_the_engines(engine: ModelFolder) -> None:
    asked = request()
    found = trainer_weights(asked, engine)
    assert (found.model, found.adapter, asked.other_weights) == (engine, None, False)


def test_an_adapters_base_is_the_one_that_it_names(
    engine: ModelFolder, tiny_llama: Path, tiny_moe: Path, tmp_path: Path
) -> None:
    asked = request(adapter=adapter_of(tmp_path, str(tiny_llama)))
    found = trainer_weights(asked, engine)
    assert found.model.path == tiny_llama.resolve() and asked.other_weights
    assert found.adapter is not None and found.adapter.layers[0].module == MODULE
    own = request(adapter=adapter_of(tmp_path, "nowhere"), trainer_model=str(tiny_llama))
    assert trainer_weights(own, engine).model.path == tiny_llama.resolve()


@pytest.mark.parametrize(
    ("base", "told"), [(None, "does not name its base"), ("nowhere/x y", "'nowhere/x y'")]
)
def test_a_base_that_is_not_found_is_asked_for(
    engine: ModelFolder, tmp_path: Path, base: str | None, told: str
) -> None:
    """Not the engine's: merged weights would get the adapter twice."""
    with pytest.raises(RequestError, match=told) as raised:
        trainer_weights(request(adapter=adapter_of(tmp_path, base)), engine)
    assert "--trainer-model" in raised.value.remedy


def test_another_vocabulary_is_refused(engine: ModelFolder, smollm2: Path) -> None:
    with pytest.raises(RequestError, match="one token is not the same on both sides"):
        trainer_weights(request(), engine, smollm2)


def test_an_adapter_for_the_engine_has_the_engines_model_as_its_base(
    engine: ModelFolder, tmp_path: Path
) -> None:
    asked = request(adapter=adapter_of(tmp_path, None), engine_adapter="merged-bf16")
    found = trainer_weights(asked, engine)
    assert found.model == engine and found.adapter is not None
    merged = tmp_path / MERGED_FOLDER
    with engine_weights(asked, engine, found.adapter, tmp_path) as loaded:
        assert (loaded.path, loaded.lora) == (merged, None)
        assert (merged / "model.safetensors").is_file()
    assert not merged.exists()
    apart = request(adapter=asked.adapter, engine_adapter="unmerged")
    with engine_weights(apart, engine, found.adapter, tmp_path) as loaded:
        assert (loaded.path, loaded.lora) == (engine.path, found.adapter)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"engine_adapter": "unmerged"}, "needs the adapter"),
        (
            {"engine_adapter": "unmerged", "adapter": "a", "engine": {"kind": "hf"}},
            "the engine is hf",
        ),
        (
            {"engine_adapter": "merged-fp32", "adapter": "a", "engine": {"kind": "vllm-server"}},
            "a running server",
        ),
        (
            {"engine_adapter": "unmerged", "adapter": "a", "engine": {"kernels": "invariant"}},
            "kernels stock",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        request(**fields)
