"""Only cells that rounding alone explains leave a floor."""

from __future__ import annotations

import pytest

from driftscope_probes.paired.grid_floors import is_healthy

Sigmas = dict[tuple[str, str], float]
#: vLLM on CPU against the trainer, SmolLM2, 768 tokens.
HEALTHY: Sigmas = {
    ("bf16", "bf16"): 0.094,
    ("bf16", "fp32"): 0.0714,
    ("fp16", "bf16"): 0.0735,
    ("fp16", "fp16"): 0.0107,
    ("fp16", "fp32"): 0.0084,
    ("fp32", "fp32"): 9.7e-6,
}


def healthy(sigmas: Sigmas) -> list[tuple[str, str]]:
    return [key for key in sigmas if is_healthy(key, sigmas, "smollm2-135m")]


def test_rounding_falls_with_the_precision() -> None:
    assert healthy(HEALTHY) == list(HEALTHY)


@pytest.mark.parametrize("fault", [0.01, 0.1, 1.0])
def test_a_fault_does_not(fault: float) -> None:
    assert healthy({key: (sigma**2 + fault**2) ** 0.5 for key, sigma in HEALTHY.items()}) == []


def test_without_fp32_in_the_engine_only_bf16_is_known_to_be_rounding() -> None:
    without = {key: sigma for key, sigma in HEALTHY.items() if key[0] != "fp32"}
    assert healthy(without) == [key for key in without if "bf16" in key]
    assert healthy({("bf16", "bf16"): 0.094}) == []


def test_cells_without_a_difference_leave_no_floor() -> None:
    assert healthy({("bf16", "bf16"): 0.0, ("fp32", "fp32"): 0.0}) == []
