"""From a setup to the task that an engine is opened with."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoConfig

from driftscope_probes.dtypes import Dtype
from driftscope_probes.engines.sessions.question import Setup
from driftscope_probes.engines.sessions.registry import task_of
from driftscope_probes.engines.settings import EngineSettings


@pytest.mark.parametrize("context", [2, 64, 513])
def test_the_engine_makes_room_for_the_longest_sequence(context: int) -> None:
    setup = Setup("fp16", EngineSettings(threads=1), context)
    task = task_of(Path("models/m"), setup)
    assert (task.model_name, task.dtype, task.engine) == ("m", "fp16", setup.engine)
    assert task.prompts.longest + task.sampling.max_tokens == context


@pytest.mark.parametrize(("dtype", "size"), [("bf16", 2), ("fp32", 4)])
def test_a_small_cache_holds_that_many_tokens(tiny_llama: Path, dtype: Dtype, size: int) -> None:
    setup = Setup(dtype, EngineSettings(threads=1), context=64, cache_tokens=96)
    gib = task_of(tiny_llama, setup).engine.kv_cache_gib
    config = AutoConfig.from_pretrained(tiny_llama)
    heads = config.num_key_value_heads * config.head_dim
    assert gib is not None
    assert gib * 2**30 == 96 * 2 * config.num_hidden_layers * heads * size
