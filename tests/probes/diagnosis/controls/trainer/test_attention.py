"""The trainer's attention written out against the fused one."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftscope_probes.diagnosis.controls.trainer.attention import TRAINER_ATTENTION

from .conftest import MakeBench, Planted


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("model", ["tiny_llama", "tiny_moe"])
def test_healthy_kernels_differ_by_rounding(
    make_bench: MakeBench, request: pytest.FixtureRequest, model: str, dtype: str
) -> None:
    bench = make_bench(request.getfixturevalue(model), dtype, moe="moe" in model)
    measured = TRAINER_ATTENTION.run(bench)
    assert measured.outcome == "clean"
    # A mixture is compared in float32, where its routes do not flip.
    assert measured.value < (0.04 if (dtype, model) == ("bf16", "tiny_llama") else 5e-6)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_kernel_of_few_bits_is_seen(
    make_bench: MakeBench, planted: Planted, tiny_llama: Path, dtype: str
) -> None:
    bench = make_bench(tiny_llama, dtype, desk=planted("attention", 2.0))
    assert TRAINER_ATTENTION.run(bench).outcome == "dirty"


@pytest.mark.parametrize(("fault", "size"), [("norm_epsilon", 0.05), ("rope", 3.0)])
def test_a_fault_elsewhere_is_in_both_kernels(
    make_bench: MakeBench, planted: Planted, tiny_llama: Path, fault: str, size: float
) -> None:
    bench = make_bench(tiny_llama, desk=planted(fault, size))
    assert TRAINER_ATTENTION.run(bench).outcome == "clean"
