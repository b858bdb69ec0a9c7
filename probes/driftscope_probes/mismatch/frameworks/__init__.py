"""One batch under every framework's own metric names, and a dry run of its presets."""

from driftscope_probes.mismatch.frameworks.preset_fates import LeftOut, PresetEffect
from driftscope_probes.mismatch.frameworks.registry import (
    FRAMEWORKS,
    aliases,
    preset_effects,
    presets,
)
from driftscope_probes.mismatch.frameworks.unmasked_tokens import AliasValues

__all__ = [
    "FRAMEWORKS",
    "AliasValues",
    "LeftOut",
    "PresetEffect",
    "aliases",
    "preset_effects",
    "presets",
]
