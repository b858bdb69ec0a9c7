"""Real transformers: padding and batch size are told apart, and seeds follow their requests."""

from pathlib import Path

import pytest

from driftscope_probes.determinism.request import DeterminismRequest
from driftscope_probes.determinism.run import run_determinism
from driftscope_probes.progress import discard

pytestmark = pytest.mark.slow


def test_padding_changes_bits_in_bf16_and_copies_do_not(tiny_llama: Path, tmp_path: Path) -> None:
    asked = DeterminismRequest(
        model=str(tiny_llama),
        engine="hf",
        threads=1,
        axes=["run_to_run", "batch_size", "position", "sglang_single", "decode_vs_prefill"],
        batch_sizes=[1, 2, 4],
        max_tokens=6,
    )
    report = run_determinism(asked, tmp_path, discard).to_dict()
    axes = {axis["axis"]: axis for axis in report["axes"]}
    for name in ("run_to_run", "position", "sglang_single"):
        assert axes[name]["verdict"] == "equal", name
    for name in ("batch_size", "decode_vs_prefill"):
        assert axes[name]["verdict"] == "differs", name
        assert axes[name]["max_abs_diff"] < 1.0
    assert axes["batch_size"]["onset"]["differs_from"] == 2
    assert report["timing"]["processes"] == 1
    assert "pads a batch on the left" in report["notes"][0]


def test_a_seed_belongs_to_its_request_not_to_its_place(tiny_llama: Path, tmp_path: Path) -> None:
    asked = DeterminismRequest(
        model=str(tiny_llama),
        engine="hf",
        engine_dtypes=["fp32"],
        threads=1,
        axes=["seeded_sampling"],
        prompt_tokens=[12],
        max_tokens=6,
    )
    (axis,) = run_determinism(asked, tmp_path, discard).to_dict()["axes"]
    assert axis["bitwise_equal_tokens"] == 1.0
    assert axis["unique_outputs"] == 1
