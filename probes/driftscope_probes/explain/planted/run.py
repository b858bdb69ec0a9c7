"""Localisation drill: bugs planted in live pairs, and what `explain` says of each. Free of torch.

In: LocalisationRequest. Out: LocalisationReport.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from driftscope_probes.children import ChildProcess
from driftscope_probes.crashes import explain_engine_crash
from driftscope_probes.engines.settings import EngineSettings, child_environment
from driftscope_probes.progress import ProgressSink

MODULE: Final = "driftscope_probes.explain.planted.run_planted"
#: Of each pair; there are 13 that are healthy as they come.
HEALTHY: Final = 3
MOST_HEALTHY: Final = 100


class LocalisationRequest(BaseModel):
    """Which bugs are planted in which pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, lt=2**31, description="of prompts and samples")
    pairs: list[str] = Field([], description="as `llama bf16 prefill`; none: all")
    bugs: list[str] = Field([], description="names; none: all")
    healthy: int = Field(HEALTHY, ge=0, le=MOST_HEALTHY, description="samples of each pair")


def run_probe(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    asked = LocalisationRequest(**request["request"])
    child = ChildProcess(
        MODULE,
        asked.model_dump(mode="json"),
        workdir / "pairs",
        explain_crash=explain_engine_crash,
        on_progress=progress,
        environment=child_environment(EngineSettings(threads=1)),
    )
    return child.wait()
