"""Which side errs: healthy pairs, a fault of the trainer, and one of the engine's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from driftscope_probes.diagnosis.controls.trainer.reference import REFERENCE_FORWARD

from .conftest import MakeBench, Planted


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("model", ["tiny_llama", "tiny_moe"])
def test_healthy_sides_are_as_far_from_the_reference_as_each_other(
    make_bench: MakeBench, request: pytest.FixtureRequest, model: str, dtype: str
) -> None:
    bench = make_bench(request.getfixturevalue(model), dtype, moe="moe" in model)
    measured = REFERENCE_FORWARD.run(bench)
    assert measured.outcome == "clean"
    engine = measured.evidence[0].value
    assert isinstance(engine, float)
    if (model, dtype) == ("tiny_moe", "bf16"):
        # Compared in float32: its routes are the reference's, the engine's in bf16 are not.
        assert measured.value < 5e-6 < engine
    else:
        assert measured.value == pytest.approx(engine, rel=0.25)


@pytest.mark.parametrize(("fault", "size"), [("sharper", 0.3), ("rope", 3.0)])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_fault_of_the_trainer_is_the_trainers(
    make_bench: MakeBench,
    planted: Planted,
    tiny_llama: Path,
    fault: str,
    size: float,
    dtype: str,
) -> None:
    measured = REFERENCE_FORWARD.run(make_bench(tiny_llama, dtype, desk=planted(fault, size)))
    assert measured.outcome == "dirty"


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_fault_of_the_engine_is_not_the_trainers(
    make_bench: MakeBench, edited: Callable[..., Path], tiny_llama: Path, dtype: str
) -> None:
    engine = edited(tiny_llama, rms_norm_eps=0.3)
    bench = make_bench(tiny_llama, dtype, engine_model=engine)
    assert bench.base.sigma > 0.2
    measured = REFERENCE_FORWARD.run(bench)
    assert measured.outcome == "clean"
    assert measured.evidence[0].value == pytest.approx(bench.base.sigma, rel=0.2)
