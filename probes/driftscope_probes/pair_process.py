"""The process of `explain` that holds a live engine and trainer, from outside. Free of torch.

Below both who ask it: explain itself, and the diagnosis, one of whose controls it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from driftscope_probes.children import ChildProcess
from driftscope_probes.crashes import explain_engine_crash
from driftscope_probes.engines.settings import EngineSettings, child_environment
from driftscope_probes.progress import ProgressSink, discard

MODULE: Final = "driftscope_probes.explain.run_pair"


def explain_pair(
    request: Mapping[str, Any],
    engine: EngineSettings,
    model: Path,
    trainer_model: Path,
    prompts: Sequence[Sequence[int]],
    workdir: Path,
    progress: ProgressSink = discard,
) -> dict[str, Any]:
    """Parts of explain's report, as JSON. `request`: an ExplainRequest as JSON, whose engine is
    `engine`; `prompts`: token ids. Raises ProbeError where a side cannot be run.
    """
    return ChildProcess(
        MODULE,
        {
            "request": dict(request),
            "model_path": str(model),
            "trainer_path": str(trainer_model),
            "prompts": [list(prompt) for prompt in prompts],
        },
        workdir,
        explain_crash=explain_engine_crash,
        on_progress=progress,
        environment=child_environment(engine),
    ).wait()
