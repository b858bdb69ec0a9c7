"""The process that holds both sides of an explanation, from outside. Free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from driftscope_probes.children import ChildProcess
from driftscope_probes.crashes import explain_engine_crash
from driftscope_probes.engines.settings import child_environment
from driftscope_probes.explain.report import Parts
from driftscope_probes.explain.request import ExplainRequest
from driftscope_probes.progress import ProgressSink, discard

MODULE: Final = "driftscope_probes.explain.run_pair"


def explain_pair(
    request: ExplainRequest,
    model: Path,
    trainer_model: Path,
    prompts: list[list[int]],
    workdir: Path,
    progress: ProgressSink = discard,
) -> Parts:
    """`prompts`: token ids. Raises ProbeError where a side cannot be run."""
    child = ChildProcess(
        MODULE,
        {
            "request": request.model_dump(mode="json"),
            "model_path": str(model),
            "trainer_path": str(trainer_model),
            "prompts": prompts,
        },
        workdir / "pair",
        explain_crash=explain_engine_crash,
        on_progress=progress,
        environment=child_environment(request.engine),
    )
    return Parts.read(child.wait())
