"""Why an engine gives other bits in another batch: its ops alone against its ops together.

In: the settings of an engine that was found to vary. Out: BatchExplanation. Free of torch: the
engine lives in a child process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from driftscope_probes.children import ChildProcess
from driftscope_probes.crashes import explain_engine_crash
from driftscope_probes.engines.sessions.question import Setup
from driftscope_probes.engines.settings import child_environment
from driftscope_probes.errors import ProbeError
from driftscope_probes.explain.report import First
from driftscope_probes.progress import ProgressSink
from driftscope_probes.record import Record

MODULE: Final = "driftscope_probes.explain.run_against_itself"
#: Tokens that each row decodes: the prompts already show every op.
NEW_TOKENS: Final = 4


class BatchOp(Record):
    """An op that gives other bits in a batch although its inputs are equal."""

    op: str
    label: str
    sites: list[str]
    layers: list[int]
    equal_fraction: float
    reason: str
    why: str


class BatchExplanation(Record):
    """Rows run alone against the same rows run together, op by op on equal inputs."""

    sentence: str
    equal: bool
    first: First | None  # `engine`: alone; `trainer`: together
    ops: list[BatchOp]
    compared: int  # ops that were compared
    seconds: float

    @staticmethod
    def failed(error: ProbeError) -> BatchExplanation:
        """Of an engine that could not be looked into."""
        sentence = f"It could not be explained: {error.message} {error.remedy}"
        return BatchExplanation(
            sentence=sentence, equal=False, first=None, ops=[], compared=0, seconds=0.0
        )


def explain_batch(
    model: Path, setup: Setup, prompts: list[list[int]], workdir: Path, progress: ProgressSink
) -> BatchExplanation:
    """Raises ProbeError."""
    child = ChildProcess(
        MODULE,
        {"model_path": str(model), "setup": setup.to_dict(), "prompts": prompts},
        workdir / "batch-explanation",
        explain_crash=explain_engine_crash,
        on_progress=progress,
        environment=child_environment(setup.engine),
    )
    return BatchExplanation.read(child.wait())
