"""Engine and trainer on one set of rounding points: the same bits through the whole probe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from driftscope_kernels.vllm_plugin.rounding import ROUNDING_VARIABLE
from driftscope_probes.engines.settings import EngineSettings, child_environment
from driftscope_probes.paired.request import PairedRequest
from driftscope_probes.paired.run import run_paired
from driftscope_probes.progress import discard

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

Probe = Callable[..., dict[tuple[str, str], dict[str, Any]]]


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    """Cells of the report, by engine dtype and trainer mode."""

    def run(model: Path, dtypes: list[str], **settings: Any) -> dict[Any, dict[str, Any]]:
        fields = {
            "prompts": 4,
            "sampling": {"max_tokens": 24},
            "engine": {"kernels": "invariant", "threads": 1},
            "trainer": {"kernels": "invariant", "threads": 1, "headroom": False},
        }
        request = PairedRequest(
            model=str(model), engine_dtypes=dtypes, trainer_dtypes=dtypes, **fields | settings
        )
        grid = run_paired(request, tmp_path, discard).to_dict()["grid"]
        return {(cell["engine_dtype"], cell["trainer_dtype"]): cell for cell in grid}

    return run


def assert_equal(cell: Mapping[str, Any]) -> None:
    found = cell["comparison"]
    assert found["bitwise_equal_fraction"] == 1.0
    assert found["abs_diff_mean"] == 0.0
    coverage = cell["rollout"]["settings"]["kernel_coverage"]
    assert (coverage["rounding"], coverage["uncovered"]) == ("transformers", {})
    assert cell["rollout"]["settings"]["kernels"] == "invariant"
    trainer = cell["trainer"]["settings"]
    assert (trainer["kernels"], trainer["stock_ops"]) == ("invariant", {})


def test_every_dtype_is_bitwise_equal_to_itself(tiny_llama: Path, probe: Probe) -> None:
    cells = probe(tiny_llama, ["bf16", "fp16", "fp32"])
    for dtype in ("bf16", "fp16", "fp32"):
        assert_equal(cells[dtype, dtype])
    assert cells["bf16", "fp32"]["comparison"]["bitwise_equal_fraction"] < 1.0


def test_whatever_the_layout_on_either_side(tiny_moe: Path, probe: Probe) -> None:
    engine = {
        "kernels": "invariant", "threads": 1, "batch_size": 3,
        "prefix_caching": True, "logprobs_mode": "processed_logprobs",
    }  # fmt: skip
    trainer = {
        "kernels": "invariant", "threads": 1, "headroom": False,
        "micro_batch": 4, "padding_side": "left",
    }  # fmt: skip
    sampling = {"max_tokens": 24, "temperature": 0.7}
    cells = probe(tiny_moe, ["bf16"], engine=engine, trainer=trainer, sampling=sampling)
    assert_equal(cells["bf16", "bf16"])


def test_a_real_model(smollm2: Path, probe: Probe) -> None:
    assert_equal(probe(smollm2, ["bf16"])["bf16", "bf16"])


def test_one_op_that_rounds_elsewhere_is_seen(
    tiny_llama: Path, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault."""

    def with_fault(engine: EngineSettings) -> dict[str, str]:
        return child_environment(engine) | {ROUNDING_VARIABLE: "transformers,rotary=vllm"}

    monkeypatch.setattr("driftscope_probes.engines.rollout.child_environment", with_fault)
    cell = probe(tiny_llama, ["bf16"])["bf16", "bf16"]
    assert cell["comparison"]["bitwise_equal_fraction"] < 0.5
    coverage = cell["rollout"]["settings"]["kernel_coverage"]
    assert coverage["rounding"] == "transformers,rotary=vllm"
