"""vLLM's CPU kernels: what is known of them comes out of the checker's own process."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from driftscope_kernels.targets import vllm_ops
from driftscope_probes.children import ChildProcess
from driftscope_probes.crashes import KERNELS_MODULE, explain_kernel_crash

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed")
ROOT = Path(__file__).parents[3]

Verdict = dict[str, Any]


def _verdicts(folder: Path, ops: list[str], dtypes: list[str], threads: list[int]) -> list[Verdict]:
    request = {
        "action": "check",
        "targets": ["vllm"],
        "ops": ops,
        "dtypes": dtypes,
        "threads": threads,
        "quick": True,
        "seed": 0,
    }
    paths = ":".join(str(ROOT / root) for root in ("service", "probes", "kernels"))
    environment = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    child = ChildProcess(
        KERNELS_MODULE,
        request,
        folder,
        explain_crash=explain_kernel_crash,
        environment=environment,
    )
    verdicts: list[Verdict] = child.wait()["verdicts"]
    return verdicts


@pytest.fixture(scope="module")
def in_fp32(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Verdict]:
    """By implementation and threads. One check for all: its processes import vLLM three times."""
    folder = tmp_path_factory.mktemp("in_fp32")
    found = _verdicts(folder, ["linear", "attention"], ["fp32"], [1, 2])
    return {(verdict["implementation"], verdict["threads"]): verdict for verdict in found}


@needs_vllm
@pytest.mark.slow
@pytest.mark.avx512
def test_onednn_linear_differs_for_one_row_of_a_long_reduction(
    in_fp32: dict[tuple[str, int], Verdict],
) -> None:
    verdict = in_fp32["onednn", 1]
    assert verdict["verdict"] == "REFUTED"
    example = verdict["counterexample"]
    assert example["found_at"]["k"] == 1536
    assert (example["left"]["count"], example["right"]["count"]) == (2, 1)
    assert 1024 < example["k"] <= 1536
    assert example["cause"] in ("gemv path", "split-K")


@needs_vllm
@pytest.mark.slow
def test_attention_that_splits_the_cache_over_threads(
    in_fp32: dict[tuple[str, int], Verdict],
) -> None:
    verdict = in_fp32["cpu_attn", 2]
    assert verdict["verdict"] == "REFUTED"
    assert verdict["counterexample"]["cause"] == "split-KV"


@needs_vllm
@pytest.mark.slow
def test_attention_without_split_reads_slots_behind_the_context(
    in_fp32: dict[tuple[str, int], Verdict],
) -> None:
    verdict = in_fp32["cpu_attn-no-split", 1]
    differing = {count["axis"] for count in verdict["axes"] if count["mismatches"]}
    assert differing == {"padding"}
    assert verdict["counterexample"]["right"]["padding"] == "nan"


@needs_vllm
@pytest.mark.slow
def test_what_the_other_layers_call_runs_and_is_near_float64(tmp_path: Path) -> None:
    verdicts = _verdicts(tmp_path, list(vllm_ops.LAYERS), ["bf16"], [1])
    assert {verdict["op"] for verdict in verdicts} == set(vllm_ops.LAYERS)
    for verdict in verdicts:
        assert verdict["verdict"] in ("REFUTED", "NOT_REFUTED"), verdict["reason"]
        counts = {count["axis"]: count for count in verdict["axes"]}
        assert counts["accuracy"]["trials"] > 0 == counts["accuracy"]["mismatches"]


def test_offering_them_does_not_import_vllm() -> None:
    before = "vllm" in sys.modules
    offered = list(vllm_ops.kernels())
    assert ("vllm" in sys.modules) == before
    assert bool(offered) == (vllm_ops.missing() is None)


def test_without_vllm_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_ops, "find_spec", lambda _: None)
    assert "not installed" in (vllm_ops.missing() or "")
    assert list(vllm_ops.kernels()) == []
