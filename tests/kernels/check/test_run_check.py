"""The whole check: known facts about torch come out, ours hold, planted faults are caught."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import cycle
from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels.check.cases.case import DTYPES
from driftscope_kernels.check.cases.op_cases import op_case
from driftscope_kernels.check.placements.axes import QUICK_ROWS
from driftscope_kernels.check.placements.placement import thread_count
from driftscope_kernels.check.run_check import Plan, check_kernel, check_planted, replay, run_check
from driftscope_kernels.check.verdict import KernelVerdict, read_replay_spec
from driftscope_kernels.registry import Kernel, kernels
from driftscope_kernels.targets import torch_ops
from driftscope_kernels.targets.driftscope import kernels as our_kernels

PLAN = Plan(quick=True)
EAGER = {k.op: k for k in torch_ops.kernels() if k.implementation == "eager"}
OURS = {k.name: k for k in our_kernels()}


def _check(kernel: Kernel, dtype: torch.dtype = torch.float32, threads: int = 1) -> KernelVerdict:
    with thread_count(threads):
        return check_kernel(kernel, dtype, PLAN)


def test_torch_linear_differs_for_few_rows() -> None:
    """MKL's sgemm on every x86 seen: to 3 rows on AMD, at so small a K to 2 on Intel."""
    verdict = _check(EAGER["linear"])
    assert verdict.verdict == "REFUTED"
    example = verdict.counterexample
    assert example is not None
    assert example.cause.name == "M-remainder path"
    assert re.match("batch sizes 1, 2(, 3)? differ", example.cause.evidence)
    assert example.mismatch.trial.shape.k <= 8
    with thread_count(1):
        _, axis, trial, left, right = read_replay_spec(_spec(verdict))
        again = replay(EAGER["linear"], axis, trial, left, right)
    assert again is not None
    assert again.difference == example.mismatch.difference


def _spec(verdict: KernelVerdict) -> dict[str, object]:
    example = verdict.to_dict()["counterexample"]
    spec: dict[str, object] = json.loads(example["replay"].split("'")[1])
    return spec


def test_torch_mean_over_strided_rows_depends_on_their_number() -> None:
    verdict = _check(EAGER["mean_strided"])
    assert verdict.verdict == "REFUTED"
    assert {c.axis for c in verdict.axes if c.mismatches} >= {"batch_size", "split"}


def test_torch_softmax_is_not_refuted_by_tests_that_see_enough() -> None:
    verdict = _check(EAGER["softmax"])
    assert verdict.verdict == "NOT_REFUTED"
    assert verdict.detection is not None
    assert verdict.detection.rate >= 0.95


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_our_reference_linear_is_proved(dtype: torch.dtype) -> None:
    verdict = _check(OURS["driftscope/linear/reference"], dtype)
    assert verdict.verdict == "PROVED"
    assert verdict.detection is not None
    assert verdict.detection.rate >= 0.95
    proof = verdict.to_dict()["proof"]
    assert proof["assumptions"]
    assert all(reading["batch_sizes"] for reading in proof["readings"])


@pytest.mark.slow
def test_none_of_our_compiled_kernels_is_refuted() -> None:
    """Each in one dtype, in turn; `driftscope kernels check` has them in all."""
    compiled = [kernel for name, kernel in OURS.items() if "/cpu" in name]
    assert len(compiled) > 15
    for kernel, dtype in zip(compiled, cycle(DTYPES.values()), strict=False):
        verdict = _check(kernel, dtype)
        assert verdict.verdict in ("PROVED", "NOT_REFUTED"), (kernel.name, verdict.reason)
        assert verdict.detection is not None
        assert verdict.detection.rate >= 0.95
        # At full strength: not cut down as a slow kernel.
        assert verdict.rows == min(QUICK_ROWS, op_case(kernel.op).most_rows or QUICK_ROWS)
        assert "invariant" not in json.dumps(verdict.to_dict())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_planted_fault_is_caught(dtype: torch.dtype) -> None:
    found = check_planted(Plan(dtypes=(dtype,), quick=True))
    assert found.missed == ()
    assert found.caught == found.total > 40


@pytest.mark.parametrize("fault", ["raises", "wrong_shape"])
def test_a_kernel_that_fails_is_reported_not_hidden(fault: str) -> None:
    def run(inputs: object, params: object) -> torch.Tensor:
        if fault == "raises":
            raise RuntimeError("no primitive for this CPU")
        return torch.zeros(1, 2)

    kernel = Kernel("test", "linear", fault, run, frozenset({torch.float32}))
    verdict = _check(kernel)
    assert verdict.verdict == "INCONCLUSIVE"
    assert verdict.reason.startswith("the kernel raised")


def test_the_report_is_json_and_never_claims_what_sampling_cannot_show() -> None:
    told: list[float] = []
    chosen = [EAGER["sum"], EAGER["softmax"]]
    plan = Plan(dtypes=(torch.float32,), quick=True)
    report = run_check(chosen, plan, lambda _, fraction: told.append(fraction)).to_dict()
    text = json.dumps(report, allow_nan=False)
    assert "invariant" not in text
    assert [v["op"] for v in report["verdicts"]] == ["sum", "softmax"]
    assert {"target", "op", "dtype", "threads", "verdict", "detection_rate", "counterexample"} <= (
        set(report["verdicts"][0])
    )
    assert report["planted"]["total"] > 0
    assert told == sorted(told)
    assert told[-1] < 1


def test_what_is_registered_can_be_checked() -> None:
    from driftscope_kernels.check.cases.op_cases import OP_CASES

    assert {kernel.op for kernel in kernels()} <= set(OP_CASES)


LINEAR_PLAN = Plan(quick=True, axes=frozenset({"layout"}))


def _rows_one_by_one(inputs: Mapping[str, Tensor], _: Mapping[str, Any]) -> Tensor:
    """Correct by docs/add-a-kernel.md: a row sees nothing of its batch, its weight as it lies."""
    weight = inputs["weight"]
    rows = [torch.nn.functional.linear(row, weight) for row in inputs["x"].contiguous()]
    return torch.stack(rows)


def _copied_first(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> Tensor:
    copy = inputs["weight"].clone(memory_format=torch.contiguous_format)
    return _rows_one_by_one({**inputs, "weight": copy}, params)


def _mine(run: Any) -> Kernel:
    return Kernel("acme", "linear", run.__name__, run, frozenset({torch.float32}))


def test_what_the_layout_refutes_is_said_to_be_the_layout() -> None:
    verdict = _check(_mine(_rows_one_by_one))
    assert verdict.verdict == "REFUTED"
    assert verdict.reason.startswith("layout: other bits with the inputs that all rows share")
    assert "bits do not depend on the batch" in verdict.reason
    assert "torch.contiguous_format" in str(verdict.to_dict()["remedy"])
    mended = _check(_mine(_copied_first))
    assert mended.verdict in ("NOT_REFUTED", "PROVED"), mended.reason
    assert mended.to_dict()["remedy"] is None


def test_one_axis_alone() -> None:
    with thread_count(1):
        of_layout = check_kernel(_mine(_rows_one_by_one), torch.float32, LINEAR_PLAN)
        batch = Plan(quick=True, axes=frozenset({"batch_size", "accuracy"}))
        of_batch = check_kernel(_mine(_rows_one_by_one), torch.float32, batch)
        nothing = Plan(quick=True, axes=frozenset({"page_order"}))
        of_pages = check_kernel(_mine(_rows_one_by_one), torch.float32, nothing)
    assert (of_layout.verdict, [one.axis for one in of_layout.axes]) == ("REFUTED", ["layout"])
    assert of_batch.verdict == "NOT_REFUTED" and of_batch.detection is None
    assert [one.axis for one in of_batch.axes] == ["batch_size", "accuracy"]
    assert "other axes were not tried" in of_batch.reason
    assert of_pages.verdict == "INCONCLUSIVE" and "nothing is compared" in of_pages.reason
