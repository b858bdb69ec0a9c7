"""ALL_RULES: every rule of the lint, file by file."""

from __future__ import annotations

from typing import Final

from driftscope_probes.lint.base import Rule
from driftscope_probes.lint.rules import engine, environment, model

ALL_RULES: Final[tuple[Rule, ...]] = (
    *model.RULES,
    *engine.RULES,
    *environment.RULES,
)
