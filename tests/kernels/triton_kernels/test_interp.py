"""The interpreter's known faults with bfloat16 are still the only ones, and its fma is fused."""

from __future__ import annotations

from driftscope_kernels.triton_kernels.interp import KNOWN_FAULTS, faults

INTERPRETED = True


def test_faults_are_the_known_ones() -> None:
    assert faults() == KNOWN_FAULTS
