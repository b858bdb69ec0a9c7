"""ALL_RULES: every rule of the lint, file by file."""

from __future__ import annotations

from typing import Final

from driftscope_probes.lint.base import Rule

ALL_RULES: Final[tuple[Rule, ...]] = ()
