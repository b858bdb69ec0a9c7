"""Compiled Triton kernels in the checker: read in a process of their own, faults refuted."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import torch

from driftscope_kernels.check.cases.case import DTYPES
from driftscope_kernels.check.run_check import Plan, run_check
from driftscope_kernels.check.static import static_kernels
from driftscope_kernels.check.static.static_kernels import StaticKernel, missing, read_static
from driftscope_kernels.check.static.static_kernels import static_kernels as found_kernels

needs_triton = pytest.mark.skipif(missing() is not None, reason="triton is not installed")


@needs_triton
def test_every_case_of_the_triton_kernels_is_offered_once() -> None:
    from driftscope_kernels.triton_kernels.cases import CASES

    offered = found_kernels()
    assert [kernel.case for kernel in offered] == list(CASES)
    assert len({kernel.name for kernel in offered}) == len(CASES)


@needs_triton
@pytest.mark.slow
def test_ours_are_static_and_planted_faults_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    # A session that interprets kernels reads compiled code all the same.
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    chosen = [kernel for kernel in found_kernels() if kernel.case in ("sum", "linear-tp8")]
    plan = Plan(dtypes=(torch.bfloat16,), quick=True)
    report = run_check([], plan, lambda *_: None, chosen).to_dict()
    names = [f"{v['op']}/{v['implementation']} {v['verdict']}" for v in report["verdicts"]]
    assert names == ["linear/compiled-tp8 STATIC", "sum/compiled STATIC"]
    assert report["planted"] == {"caught": 3, "total": 3, "missed": []}
    for verdict in report["verdicts"]:
        (reading,) = verdict["static"]
        assert reading["assumptions"] and reading["binaries"]
    json.dumps(report, allow_nan=False)


def _reading(architecture: str, verdict: str | None, *reasons: str) -> dict[str, Any]:
    return {
        "name": "sum/fp32",
        "architecture": architecture,
        "verdict": verdict,
        "reasons": list(reasons),
        "binaries": [{}],
        "batch_sizes": [1, 2, 129],
    }


@pytest.mark.parametrize(
    ("readings", "verdict", "reason"),
    [
        ([_reading("sm_90", "STATIC"), _reading("gfx942", "STATIC")], "STATIC", "sm_90, gfx942"),
        (
            [_reading("sm_90", "STATIC"), _reading("sm_80", "REFUTED", "atomic")],
            "REFUTED",
            "atomic (sm_80)",
        ),
        ([_reading("sm_90", None, "not compiled")], "INCONCLUSIVE", "not compiled (sm_90)"),
    ],
)
def test_one_architecture_that_is_not_static_decides(
    monkeypatch: pytest.MonkeyPatch, readings: list[dict[str, Any]], verdict: str, reason: str
) -> None:
    planted = {**_reading("sm_90", "STATIC"), "name": "planted/atomic_split_sum"}
    monkeypatch.setattr(static_kernels, "_readings", lambda _: [*readings, planted])
    kernel = StaticKernel("sum", "sum", frozenset({DTYPES["fp32"]}))
    (found,), faults = read_static([kernel], list(DTYPES.values()), quick=False)
    assert found.verdict == verdict
    assert reason in found.reason
    assert faults == {"triton/atomic_split_sum": False}


def test_offering_them_does_not_import_triton() -> None:
    before = "triton" in sys.modules
    found_kernels()
    assert ("triton" in sys.modules) == before
