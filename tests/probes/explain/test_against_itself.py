"""An engine against itself: rows alone and together, op by op on equal inputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftscope_probes.engines.sessions.question import Setup
from driftscope_probes.engines.settings import EngineSettings
from driftscope_probes.explain.batch_explanation import BatchExplanation, explain_batch
from driftscope_probes.progress import discard

#: Of unlike lengths: rows of a batch differ in what they have behind them.
PROMPTS = [[3 + (i * j) % 400 for j in range(1, length)] for i, length in enumerate((9, 30, 21), 2)]


def explained(model: Path, workdir: Path, kernels: str, dtype: str) -> BatchExplanation:
    settings = EngineSettings.model_validate({"kernels": kernels, "threads": 1})
    setup = Setup.from_dict(Setup("fp32", settings, context=64).to_dict() | {"dtype": dtype})
    return explain_batch(model, setup, PROMPTS, workdir, discard)


def test_invariant_kernels_give_rows_the_same_bits_in_any_batch(
    tiny_llama: Path, tmp_path: Path
) -> None:
    found = explained(tiny_llama, tmp_path, "invariant", "bf16")
    assert found.equal and found.ops == []
    assert found.compared > 30 and "same bits" in found.sentence


@pytest.mark.slow
def test_stock_kernels_that_vary_are_named_as_an_order_of_additions(
    tiny_llama: Path, tmp_path: Path
) -> None:
    """Which of them vary depends on the processor; none of one engine differs by more."""
    found = explained(tiny_llama, tmp_path, "stock", "fp32")
    assert all(op.reason == "reduction_order" for op in found.ops)
    assert found.equal == (not found.ops)
    assert all(op.equal_fraction < 1.0 and op.label in found.sentence for op in found.ops)
