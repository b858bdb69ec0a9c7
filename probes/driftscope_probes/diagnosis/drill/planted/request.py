"""What may be asked of a drill on controls, checked. Free of torch."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

#: Seconds for each case; what the planner's own budget is by default.
BUDGET_S: Final = 300
MOST_HEALTHY: Final = 1_000


class ControlsRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    causes: list[str] | None = None  # of the planted systems; None: all
    model: str = Field("tiny-qwen", description="policy of the drill, or a dense model's folder")
    seed: int = Field(1, ge=0, le=2**31 - 1, description="of updates, prompts and sampling")
    budget: int = Field(BUDGET_S, ge=1, le=86_400, description="seconds for a case")
    #: Whether all controls are run in the order of the registry, too, until the same stop rule;
    #: otherwise outcomes of those that the planner left out are taken from their tables.
    fixed_order: bool = False
    only: list[str] | None = None  # controls that are run on healthy pairs; None: all
    healthy: int = Field(0, ge=0, le=MOST_HEALTHY, description="healthy pairs, no planted ones")
