"""The engine in a process of its own: tokens are sampled, and its memory is free again.

In: a RolloutTask. Out: the rollout's Trace, and how long it took. Free of torch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from driftscope_probes.children import ChildProcess
from driftscope_probes.crashes import explain_engine_crash
from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.settings import child_environment
from driftscope_probes.progress import ProgressSink
from driftscope_probes.prompts import write_prompts
from driftscope_probes.trace import Trace
from driftscope_probes.trace_file import read_trace


@dataclass(frozen=True, slots=True)
class Rollout:
    trace: Trace
    trace_file: Path
    load_s: float  # process start, imports and engine initialisation
    generate_s: float


def roll_out(task: RolloutTask, workdir: Path, progress: ProgressSink) -> Rollout:
    """Run the engine; its memory is freed when this returns. Raises EngineError, RequestError."""
    workdir.mkdir(parents=True, exist_ok=True)
    prompts_file = workdir / "prompts.safetensors"
    write_prompts(task.prompts, prompts_file)
    child = ChildProcess(
        "driftscope_probes.engines.run_rollout",
        {
            "model_path": str(task.model_path),
            "model_name": task.model_name,
            "dtype": task.dtype,
            "prompts": str(prompts_file),
            "sampling": task.sampling.model_dump(),
            "engine": task.engine.model_dump(),
            "adapter": None if task.adapter is None else task.adapter.to_json(),
            "started": time.time(),
        },
        workdir,
        explain_crash=explain_engine_crash,
        on_progress=progress,
        environment=child_environment(task.engine),
    )
    result = child.wait()
    trace_file = Path(result["trace"])
    return Rollout(read_trace(trace_file), trace_file, result["load_s"], result["generate_s"])
