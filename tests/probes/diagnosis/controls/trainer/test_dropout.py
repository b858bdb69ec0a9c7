"""What the trainer draws at random: off, and drawn again from another seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftscope_probes.diagnosis.controls.trainer.dropout import DROPOUT_OFF
from driftscope_probes.diagnosis.controls.trainer.repeat import TRAINER_REPEAT

from .conftest import MakeBench, Planted


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_dropout_falls_with_evaluation_mode_and_shows_in_a_repeat(
    make_bench: MakeBench, planted: Planted, tiny_llama: Path, dtype: str
) -> None:
    bench = make_bench(tiny_llama, dtype, desk=planted("dropout", 0.1))
    assert DROPOUT_OFF.run(bench).outcome == "clean"
    repeated = TRAINER_REPEAT.run(bench)
    assert repeated.outcome == "dirty"
    assert repeated.value > 0.9


@pytest.mark.parametrize(("fault", "size"), [("sharper", 0.3), ("norm_epsilon", 0.05)])
def test_another_fault_stays_in_evaluation_mode_and_repeats_itself(
    make_bench: MakeBench, planted: Planted, tiny_llama: Path, fault: str, size: float
) -> None:
    bench = make_bench(tiny_llama, desk=planted(fault, size))
    assert DROPOUT_OFF.run(bench).outcome == "dirty"
    assert TRAINER_REPEAT.run(bench).outcome == "clean"


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("model", ["tiny_llama", "tiny_moe"])
def test_a_healthy_trainer_repeats_its_bits(
    make_bench: MakeBench, request: pytest.FixtureRequest, model: str, dtype: str
) -> None:
    bench = make_bench(request.getfixturevalue(model), dtype, moe="moe" in model, micro_batch=4)
    repeated = TRAINER_REPEAT.run(bench)
    assert (repeated.outcome, repeated.value) == ("clean", 0.0)
    # Nothing falls: the difference of a healthy pair is not dropout's.
    assert DROPOUT_OFF.run(bench).outcome == "dirty"
