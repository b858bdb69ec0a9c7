"""Each side in its own process: a rollout's Trace, then the trainer's on it. Free of torch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftscope_probes.children import ChildProcess
from driftscope_probes.crashes import explain_engine_crash, explain_trainer_crash
from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.settings import available_cores, child_environment
from driftscope_probes.paired.report import Gradient
from driftscope_probes.progress import ProgressSink
from driftscope_probes.prompts import PromptBatch, write_prompts
from driftscope_probes.trace import Trace
from driftscope_probes.trace_file import read_trace
from driftscope_probes.trainer.settings import TrainerSettings


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


@dataclass(frozen=True, slots=True)
class Scores:
    traces: Mapping[tuple[str, str], Trace]  # (engine dtype, trainer mode) -> trainer trace
    gradients: tuple[Gradient, ...] | None
    headroom: dict[str, Any] | None
    trainer_s: float  # the whole child: start, imports, loading, forward and backward passes


def score(
    *,
    model_path: Path,
    model_name: str,
    prompts: PromptBatch,
    rollout_files: Mapping[str, Path],
    modes: Sequence[str],
    settings: TrainerSettings,
    workdir: Path,
    progress: ProgressSink,
) -> Scores:
    """Score every rollout in every mode. Raises TrainerError."""
    started = time.monotonic()
    workdir.mkdir(parents=True, exist_ok=True)
    prompts_file = workdir / "prompts.safetensors"
    write_prompts(prompts, prompts_file)
    child = ChildProcess(
        "driftscope_probes.trainer.run_trainer",
        {
            "model_path": str(model_path),
            "model_name": model_name,
            "modes": list(modes),
            "prompts": str(prompts_file),
            "rollouts": {dtype: str(path) for dtype, path in rollout_files.items()},
            "settings": settings.model_dump(),
        },
        workdir,
        explain_crash=explain_trainer_crash,
        on_progress=progress,
        environment={
            "OMP_NUM_THREADS": str(settings.threads or available_cores()),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        },
    )
    result = child.wait()
    traces = {
        (dtype, mode): read_trace(Path(path))
        for mode, files in result["traces"].items()
        for dtype, path in files.items()
    }
    gradients = result["gradients"]
    if gradients is not None:
        gradients = tuple(map(Gradient.read, gradients))
    return Scores(traces, gradients, result["headroom"], time.monotonic() - started)
