"""Dry run of every framework's rejection and truncation presets."""

from driftscope_probes.mismatch.presets.dry_run import preset_effects, presets
from driftscope_probes.mismatch.presets.effect import LeftOut, PresetEffect

__all__ = ["LeftOut", "PresetEffect", "preset_effects", "presets"]
