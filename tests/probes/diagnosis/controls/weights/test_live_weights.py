"""vLLM in processes of its own: the adapter in every way, and a fresh engine's answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

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
