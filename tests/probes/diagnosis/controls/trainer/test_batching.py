"""The trainer against itself: other micro-batches, the other side of the padding."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.measurement import NotExercised
from driftscope_probes.diagnosis.controls.trainer.batching import (
    TRAINER_MICROBATCH_ONE,
    TRAINER_PADDING_SIDES,
)

from .conftest import MakeBench, Planted

#: Other row counts are summed in another order: 0.0078 (bf16) and 9.3e-7 (fp32) were measured.
ROUNDING = {"bf16": 0.02, "fp32": 3e-6}


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("model", ["tiny_llama", "tiny_moe"])
@pytest.mark.parametrize("control", [TRAINER_MICROBATCH_ONE, TRAINER_PADDING_SIDES])
def test_a_healthy_trainer_moves_by_rounding(
    make_bench: MakeBench, request: pytest.FixtureRequest, model: str, dtype: str, control: Control
) -> None:
    bench = make_bench(request.getfixturevalue(model), dtype, moe="moe" in model, micro_batch=4)
    measured = control.run(bench)
    assert measured.outcome == "clean"
    assert measured.value < ROUNDING[dtype]


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_kernel_for_several_rows_is_told_from_padding(
    make_bench: MakeBench, planted: Planted, tiny_llama: Path, dtype: str
) -> None:
    bench = make_bench(tiny_llama, dtype, desk=planted("batch", 2.0), micro_batch=4)
    assert TRAINER_MICROBATCH_ONE.run(bench).outcome == "dirty"
    assert TRAINER_PADDING_SIDES.run(bench).outcome == "clean"


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_padding_that_is_attended_to_shows_in_both(
    make_bench: MakeBench, planted: Planted, tiny_llama: Path, dtype: str
) -> None:
    bench = make_bench(tiny_llama, dtype, desk=planted("pad"), micro_batch=4, padding_side="left")
    assert TRAINER_MICROBATCH_ONE.run(bench).outcome == "dirty"
    assert TRAINER_PADDING_SIDES.run(bench).outcome == "dirty"


def test_a_trainer_that_scores_one_by_one_has_nothing_to_compare(
    make_bench: MakeBench, tiny_llama: Path
) -> None:
    bench = make_bench(tiny_llama)
    for control in (TRAINER_MICROBATCH_ONE, TRAINER_PADDING_SIDES):
        with pytest.raises(NotExercised, match="one sequence at a time"):
            control.run(bench)
    with pytest.raises(NotExercised, match="nothing is padded"):
        TRAINER_PADDING_SIDES.run(make_bench(tiny_llama, micro_batch=4, batching="packed"))
