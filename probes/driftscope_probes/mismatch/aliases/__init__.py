"""One batch under every framework's own metric names and definitions."""

from driftscope_probes.mismatch.aliases.alias_values import AliasValues
from driftscope_probes.mismatch.aliases.registry import FRAMEWORKS, aliases

__all__ = ["FRAMEWORKS", "AliasValues", "aliases"]
