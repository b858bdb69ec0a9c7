"""The command for machines with a GPU: it says where there is none, and finds what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from driftscope_kernels.triton_kernels import check_cuda
from driftscope_kernels.triton_kernels.cases import CASES
from driftscope_kernels.triton_kernels.check_cuda import NOTHING_TO_RUN_ON, Finding, finding
from driftscope_kernels.triton_kernels.registered import FUNCTIONS

COMMAND = (sys.executable, "-m", "driftscope_kernels.triton_kernels.check_cuda")
SMALL = ("--device", "cpu", "--dtype", "fp16", "--rows", "2", "--sizes", "1", "3")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
    assert done.returncode == NOTHING_TO_RUN_ON
    assert "no CUDA device" in done.stderr and not done.stdout


def test_under_the_interpreter_all_holds() -> None:
    done = subprocess.run(
        [*COMMAND, *SMALL, "--op", "log_softmax", "--op", "bmm"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["holds"] and [one["dot"] for one in report["findings"]] == [
        None,
        "in_order",
        "tensor_cores",
    ]


def _sum_in_halves_of_a_single_row(x: Tensor, dims: Sequence[int]) -> Tensor:
    halves = x.float().chunk(2, -1) if len(x) == 1 else (x.float(),)
    return torch.stack([half.cumsum(-1)[..., -1] for half in halves]).sum(0).to(x.dtype)


def test_a_kernel_that_depends_on_the_batch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = _sum_in_halves_of_a_single_row
    faulty.__name__ = "sum"
    others = tuple(f for f in FUNCTIONS if f.__name__ != "sum")
    monkeypatch.setattr(check_cuda, "FUNCTIONS", (*others, faulty))
    found = finding(CASES["sum"], "fp32", None, torch.device("cpu"), (1, 2, 9), 3)
    assert found.within_tolerance and not found.batch_invariant and not found.holds
    assert found.differing_sizes == (1,)


def test_what_counts_as_wrong() -> None:
    good = Finding("linear", "bf16", "in_order", True, True, 0.0, True, ())
    assert good.holds and not replace(good, equals_reference=False).holds
    assert replace(good, equals_reference=False, dot="tensor_cores").holds
    assert not replace(good, within_tolerance=False).holds
    assert not replace(good, batch_invariant=False, differing_sizes=(1,)).holds
