"""Engine kind -> implementation, imported only when asked for: each needs other packages."""

from __future__ import annotations

from driftscope_probes.engines.base import RolloutEngine, RolloutTask


def open_engine(task: RolloutTask) -> RolloutEngine:
    """Load the engine that the task names. Raises EngineError or RequestError with a remedy."""
    match task.engine.kind:
        case "vllm":
            from driftscope_probes.engines.vllm_in_process import VllmInProcess

            return VllmInProcess(task)
        case "vllm-server":
            from driftscope_probes.engines.vllm_server import VllmServer

            return VllmServer(task)
        case "hf":
            from driftscope_probes.engines.hf_generate import HfGenerate

            return HfGenerate(task)
