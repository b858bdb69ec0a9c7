"""Child process of the trainer side: score rollouts in every mode, then measure FP16's headroom.

`python -m driftscope_probes.trainer.run_trainer WORKDIR`: request.json in; trace files and
result.json out (`child_process.py` has the protocol, `grid.py` the work).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftscope_probes.children import child_main
from driftscope_probes.models.adapter import Adapter
from driftscope_probes.progress import Progress, ProgressSink
from driftscope_probes.trainer.settings import TrainerSettings

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def run(request: dict[str, Any], workdir: Path, sink: ProgressSink) -> Mapping[str, Any]:
    """Result: traces {mode: {engine dtype: path}}, the same of the quiet forward and of the
    engine's weights where they were scored, rates of dropout, gradients, headroom, timing (s).
    """
    sink(Progress("starting the trainer: importing torch", 0.0))
    os.environ.update(ENVIRONMENT)
    started = time.perf_counter()
    # Imported late: huggingface_hub reads the environment when it is imported.
    from driftscope_probes.trainer.grid import GridRequest, run_grid

    import_s = time.perf_counter() - started
    settings = TrainerSettings.model_validate(request["settings"])
    set_threads(settings.threads)
    engine = request.get("engine_weights")
    grid = GridRequest(
        model_path=request["model_path"],
        model_name=request["model_name"],
        adapter=Adapter.from_json(request["adapter"]) if request.get("adapter") else None,
        engine_model_path=None if engine is None else engine["path"],
        engine_lora=Adapter.from_json(engine["lora"]) if engine and engine["lora"] else None,
        modes=request["modes"],
        prompts=Path(request["prompts"]),
        rollouts={dtype: Path(path) for dtype, path in request["rollouts"].items()},
        settings=settings,
    )
    result = run_grid(grid, workdir, sink)
    return {**result, "timing": {"import_s": import_s, **result["timing"]}}


def set_threads(threads: int | None) -> None:
    """None: every core this process may run on, whatever OMP_NUM_THREADS says."""
    import torch

    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))


if __name__ == "__main__":
    child_main(run)
