"""Child process that loads one engine, generates once and leaves its Trace on disk.

    python -m driftscope_probes.engines.run_rollout WORKDIR

request.json: model_path, model_name, dtype, prompts (path), sampling, engine, adapter (for vLLM's
LoRA), started (seconds since the epoch). The result names the trace file and says how long loading
took (from `started` on, so process start and imports included) and generating.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftscope_probes.children import child_main
from driftscope_probes.device.versions import check_versions
from driftscope_probes.engines.base import RolloutEngine, RolloutTask
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.models.adapter import Adapter
from driftscope_probes.progress import Progress, ProgressSink, scaled
from driftscope_probes.prompts import read_prompts
from driftscope_probes.trace_file import write_trace

#: Loading and sampling take about equally long for a small model; half of loading is imports.
LOAD_FRACTION = 0.5
IMPORT_FRACTION = LOAD_FRACTION / 2


def open_engine(task: RolloutTask, progress: ProgressSink) -> RolloutEngine:
    """Load the engine that the task names. Raises EngineError or RequestError with a remedy."""
    match task.engine.kind:
        case "vllm":
            check_versions("vllm")
            progress(Progress("importing vLLM", 0.0))
            from driftscope_probes.engines.vllm_in_process import VllmInProcess

            progress(Progress("loading the model", IMPORT_FRACTION))
            return VllmInProcess(task)
        case "vllm-server":
            progress(Progress("asking the server", 0.0))
            from driftscope_probes.engines.vllm_server import VllmServer

            return VllmServer(task)
        case "hf":
            check_versions("transformers", "torch")
            progress(Progress("importing transformers", 0.0))
            from driftscope_probes.engines.hf_generate import HfGenerate

            progress(Progress("loading the model", IMPORT_FRACTION))
            return HfGenerate(task)


def run(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    task = RolloutTask(
        model_path=Path(request["model_path"]),
        model_name=request["model_name"],
        dtype=request["dtype"],
        prompts=read_prompts(Path(request["prompts"])),
        sampling=SamplingSettings(**request["sampling"]),
        engine=EngineSettings(**request["engine"]),
        adapter=Adapter.from_json(request["adapter"]) if request.get("adapter") else None,
    )
    engine = open_engine(task, progress)
    loaded = time.time()
    trace = engine.generate(scaled(progress, LOAD_FRACTION, 1.0))
    generated = time.time()
    trace_file = workdir / "rollout.safetensors"
    write_trace(trace, trace_file)
    return {
        "trace": str(trace_file),
        "load_s": loaded - request["started"],
        "generate_s": generated - loaded,
    }


if __name__ == "__main__":
    child_main(run)
