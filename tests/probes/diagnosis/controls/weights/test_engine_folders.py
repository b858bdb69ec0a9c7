"""Which folder the engine loads for a change, and which adapter it keeps beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from driftscope_probes.diagnosis.controls.engine_folders import EngineFolder, EngineFolders
from driftscope_probes.diagnosis.controls.live_engine import LiveEngine
from driftscope_probes.diagnosis.controls.sides import EngineChange, Sequences
from driftscope_probes.engines.sessions.question import Setup
from driftscope_probes.engines.settings import EngineSettings
from driftscope_probes.errors import RequestError

from .benches import adapter, sides_of


def test_as_it_is_and_as_the_trainer_has_it(tiny_llama: Path, tmp_path: Path) -> None:
    lora = adapter(tiny_llama, tmp_path / "lora")
    served, old = tmp_path / "served", tmp_path / "old"
    sides = sides_of(served, tiny_llama, engine=EngineSettings(), adapter=lora, older_models=(old,))
    folders = EngineFolders(sides, tmp_path / "w")
    assert folders.of(EngineChange()) == EngineFolder(served)
    apart = EngineFolder(tiny_llama, lora.path)
    assert folders.of(EngineChange(weights="trainer")) == apart
    assert folders.of(EngineChange(weights="trainer", adapter="off")) == EngineFolder(tiny_llama)
    assert folders.of(EngineChange(weights=0)) == EngineFolder(old)
    merged = folders.of(EngineChange(weights="trainer", adapter="merged-bf16"))
    assert merged == folders.of(EngineChange(weights="trainer", adapter="merged-bf16"))
    assert merged.adapter is None and (merged.model / "model.safetensors").is_file()
    # transformers serves no adapter: merged and kept in float32 is the nearest.
    here = EngineFolders(replace(sides, engine=EngineSettings(kind="hf")), tmp_path / "hf")
    assert here.of(EngineChange(weights="trainer")).model.name == "merged-fp32-trainer"
    folders.close()
    assert not merged.model.exists()


def test_what_is_not_there_is_named(tiny_llama: Path, tmp_path: Path) -> None:
    sides = sides_of(tiny_llama, tiny_llama, engine=EngineSettings())
    folders = EngineFolders(sides, tmp_path / "w")
    with pytest.raises(RequestError, match="none is given"):
        folders.of(EngineChange(adapter="unmerged"))
    with pytest.raises(RequestError, match="0 folders are known"):
        folders.of(EngineChange(weights=0))


def test_a_running_server_has_its_own_weights(tiny_llama: Path, tmp_path: Path) -> None:
    settings = EngineSettings(kind="vllm-server", server_url="http://127.0.0.1:1")
    live = LiveEngine(sides_of(tiny_llama, tiny_llama, engine=settings), tmp_path)
    with pytest.raises(RequestError, match="other settings or weights"):
        live.sample(EngineChange(adapter="merged-fp32"))
    with pytest.raises(RequestError, match="routers of a running server"):
        live.rescore_routed(Sequences(((1, 2),), ((3,),)), EngineChange())


def test_a_setup_survives_the_way_to_the_engine(tmp_path: Path) -> None:
    setup = Setup("bf16", EngineSettings(), 64, adapter=tmp_path / "lora")
    assert Setup.from_dict(setup.to_dict()) == setup
