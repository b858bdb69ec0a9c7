"""What may be asked of a drill, checked. Free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

#: Every way of injection once or twice, in some minutes on two cores.
DEFAULT_CASES = 120
#: Each course of a run once; a run has twelve steps.
DEFAULT_RUNS = 12
MOST_RUNS = 2_000
#: Beyond this the figures no longer move, and a drill takes a day.
MOST_CASES = 20_000


class DrillRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Faulty ones; half as many healthy pairs are added.
    cases: int = Field(default=DEFAULT_CASES, ge=1, le=MOST_CASES)
    #: Whole runs whose fault shows over their steps, healthy ones among them.
    runs: int = Field(default=DEFAULT_RUNS, ge=0, le=MOST_RUNS)
    causes: list[str] | None = None  # names of the catalogue; None: all
    way: Literal["a", "b", "both"] = "both"
    models: list[str] | None = None  # policies of the drill; None: all
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    #: Push files of an earlier drill or dump, answered again instead of new ones; no runs then.
    again: Path | None = None
