"""The trainer's side in a process of its own: every rollout scored in every mode. Free of torch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftscope_probes.children import ChildProcess
from driftscope_probes.crashes import explain_trainer_crash
from driftscope_probes.engines.settings import available_cores
from driftscope_probes.models.adapter import Adapter
from driftscope_probes.paired.report import Gradient
from driftscope_probes.paired.weights import EngineWeights
from driftscope_probes.progress import ProgressSink
from driftscope_probes.prompts import PromptBatch, write_prompts
from driftscope_probes.trace import Trace
from driftscope_probes.trace_file import read_trace
from driftscope_probes.trainer.randomness import Rate
from driftscope_probes.trainer.settings import TrainerSettings

Traces = Mapping[tuple[str, str], Trace]  # (engine dtype, trainer mode) -> trainer trace


@dataclass(frozen=True, slots=True)
class Scores:
    traces: Traces
    quiet: Traces  # without what training mode draws at random; empty where it draws nothing
    engine_weights: Traces  # of the weights that the engine loaded; empty where they are the same
    rates: tuple[Rate, ...]  # of dropout and the like, as the trainer's config names them
    gradients: tuple[Gradient, ...] | None
    headroom: dict[str, Any] | None
    trainer_s: float  # the whole child: start, imports, loading, forward and backward passes


def score(
    *,
    model_path: Path,
    model_name: str,
    adapter: Adapter | None,
    engine_weights: EngineWeights | None,
    prompts: PromptBatch,
    rollout_files: Mapping[str, Path],
    modes: Sequence[str],
    settings: TrainerSettings,
    workdir: Path,
    progress: ProgressSink,
) -> Scores:
    """Score every rollout in every mode. Raises TrainerError.

    `engine_weights`: where they are not the trainer's.
    """
    started = time.monotonic()
    workdir.mkdir(parents=True, exist_ok=True)
    prompts_file = workdir / "prompts.safetensors"
    write_prompts(prompts, prompts_file)
    child = ChildProcess(
        "driftscope_probes.trainer.run_trainer",
        {
            "model_path": str(model_path),
            "model_name": model_name,
            "adapter": None if adapter is None else adapter.to_json(),
            "engine_weights": None if engine_weights is None else engine_weights.to_json(),
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
    gradients = result["gradients"]
    if gradients is not None:
        gradients = tuple(map(Gradient.read, gradients))
    return Scores(
        traces=_traces(result["traces"]),
        quiet=_traces(result["quiet"]),
        engine_weights=_traces(result["engine_weights"]),
        rates=tuple(map(Rate.read, result["rates"])),
        gradients=gradients,
        headroom=result["headroom"],
        trainer_s=time.monotonic() - started,
    )


def _traces(by_mode: Mapping[str, Mapping[str, str]]) -> Traces:
    return {
        (dtype, mode): read_trace(Path(path))
        for mode, files in by_mode.items()
        for dtype, path in files.items()
    }
