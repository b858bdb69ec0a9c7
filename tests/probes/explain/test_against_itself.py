"""An engine against itself: rows alone and together, op by op on equal inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from driftscope_probes.determinism.request import DeterminismRequest
from driftscope_probes.determinism.run import run_determinism
from driftscope_probes.engines.sessions.question import Setup
from driftscope_probes.engines.settings import EngineSettings
from driftscope_probes.errors import EngineError
from driftscope_probes.explain.batch_explanation import BatchExplanation, explain_batch
from driftscope_probes.explain.planted.families import save
from driftscope_probes.models.tiny_random import tokenizer
from driftscope_probes.progress import discard
from driftscope_service.experiments.determinism.terminal import print_determinism

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
def test_a_batch_that_differs_is_explained_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 1,536 terms oneDNN adds one row in other blocks than many, on AMD's processors."""
    folder = save("llama_wide", tmp_path / "wide")
    tokenizer().save(folder)
    request = DeterminismRequest(
        model="llama_wide", axes=["batch_size"], batch_sizes=[1, 4], engine_dtypes=["fp32"],
        prompt_tokens=[20, 33], max_tokens=4, threads=1, bisect=False, explain=True,
    )  # fmt: skip
    report = run_determinism(request, tmp_path / "work", discard, folder)
    (axis,) = report.axes
    if axis.verdict == "equal":
        assert axis.explanation is None
        pytest.skip("one row and many are added in one order on this processor")
    found = axis.explanation
    assert found is not None and not found.equal and found.first is not None
    by_op = {op.op: op for op in found.ops}
    assert by_op["linear"].sites == ["down_proj"], "the one layer of 1,536 terms"
    assert by_op["linear"].reason == "reduction_order"
    assert by_op["linear"].equal_fraction < 1.0
    print_determinism(report, Console(width=200))
    assert found.sentence in " ".join(capsys.readouterr().out.split())


def test_what_cannot_be_explained_loses_no_report(tmp_path: Path) -> None:
    error = EngineError("the engine ended.", remedy="ask for fewer rows.")
    assert "the engine ended. ask for fewer rows." in BatchExplanation.failed(error).sentence
