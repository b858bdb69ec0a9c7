"""The sweep of dtypes: what float32 takes away, on one side and on both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from driftscope_probes.diagnosis.controls.measurement import NotExercised
from driftscope_probes.diagnosis.controls.trainer.dtypes import DTYPES_FP32, FP32_HEAD_TRAINER

from .conftest import MakeBench, Planted


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_moe"])
def test_float32_on_both_sides_takes_rounding_away_and_on_one_it_does_not(
    make_bench: MakeBench, request: pytest.FixtureRequest, model: str
) -> None:
    bench = make_bench(request.getfixturevalue(model), moe="moe" in model)
    measured = DTYPES_FP32.run(bench)
    assert measured.outcome == "clean"
    assert measured.value < 1e-3 * bench.base.sigma
    for one_side in measured.evidence:
        assert isinstance(one_side.value, float)
        assert one_side.value > 0.5 * bench.base.sigma
    assert FP32_HEAD_TRAINER.run(bench).outcome == "dirty"


def test_another_function_is_as_far_off_in_float32(
    make_bench: MakeBench, edited: Callable[..., Path], tiny_llama: Path
) -> None:
    engine = edited(tiny_llama, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    bench = make_bench(tiny_llama, engine_model=engine)
    assert DTYPES_FP32.run(bench).outcome == "dirty"


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_coarse_head_is_cured_by_a_float32_one(
    make_bench: MakeBench, planted: Planted, tiny_llama: Path, dtype: str
) -> None:
    bench = make_bench(tiny_llama, dtype, desk=planted("head", 3.0))
    assert FP32_HEAD_TRAINER.run(bench).outcome == "clean"


def test_what_is_in_float32_already_is_not_tried(make_bench: MakeBench, tiny_llama: Path) -> None:
    with pytest.raises(NotExercised, match="both sides run in float32"):
        DTYPES_FP32.run(make_bench(tiny_llama, "fp32"))
    with pytest.raises(NotExercised, match="head is in float32"):
        FP32_HEAD_TRAINER.run(make_bench(tiny_llama, "fp32+fp32-head"))
