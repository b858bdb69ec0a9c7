"""BatchEngine, and the one that a Setup asks for, imported on demand: each needs other packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from driftscope_probes.device.versions import check_versions
from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.sessions.question import Answer, Batch, Setup
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings, bytes_per_token
from driftscope_probes.models.adapter import read_adapter
from driftscope_probes.prompts import PromptBatch


class BatchEngine(Protocol):
    def run(self, batch: Batch) -> Answer:
        """Raises ProbeError."""
        ...

    def used_settings(self) -> dict[str, Any]: ...

    def close(self) -> None:
        """Let go of the model, so that another engine can be loaded in this process."""
        ...


def open_engine(model: Path, setup: Setup) -> BatchEngine:
    """Load the engine of `setup` in this process. Raises ProbeError."""
    task = task_of(model, setup)
    if setup.engine.kind == "hf":
        assert setup.adapter is None, "transformers serves no adapter here"
        check_versions("transformers", "torch")
        from driftscope_probes.engines.sessions.hf_batches import HfBatches

        return HfBatches(task)
    assert setup.engine.kind == "vllm", "a server is asked without a process of ours"
    check_versions("vllm")
    from driftscope_probes.engines.sessions.vllm_batches import VllmBatches

    return VllmBatches(task)


def task_of(model: Path, setup: Setup) -> RolloutTask:
    """What the engines of the paired probe are opened with."""
    return RolloutTask(
        model_path=model,
        model_name=model.name,
        dtype=setup.dtype,
        # Only its length matters: the engine makes room for it.
        prompts=PromptBatch.from_lists([[0] * (setup.context - 1)]),
        sampling=SamplingSettings(max_tokens=1, temperature=0.0),
        engine=_engine(model, setup),
        adapter=None if setup.adapter is None else read_adapter(str(setup.adapter)),
    )


def _engine(model: Path, setup: Setup) -> EngineSettings:
    if setup.cache_tokens is None:
        return setup.engine
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model, trust_remote_code=False).get_text_config()
    size = setup.cache_tokens * bytes_per_token(config, setup.dtype)
    return EngineSettings(**{**setup.engine.model_dump(), "kv_cache_gib": size / 2**30})
