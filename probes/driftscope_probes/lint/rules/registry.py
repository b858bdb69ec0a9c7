"""ALL_RULES: every rule of the lint, file by file."""

from __future__ import annotations

from typing import Final

from driftscope_probes.lint.base import Rule
from driftscope_probes.lint.rules import (
    correction,
    engine,
    environment,
    experts,
    generation,
    memory,
    model,
    sampling,
    trainer,
    weights,
)

ALL_RULES: Final[tuple[Rule, ...]] = (
    *model.RULES,
    *engine.RULES,
    *generation.RULES,
    *memory.RULES,
    *environment.RULES,
    *trainer.RULES,
    *correction.RULES,
    *experts.RULES,
    *weights.RULES,
    *sampling.RULES,
)
