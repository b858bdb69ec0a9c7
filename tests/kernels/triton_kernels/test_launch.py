"""Starting kernels: where they run, what a recording sees, and rows that are not aligned."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from driftscope_kernels.triton_kernels.launch import (
    DeviceError,
    SizeError,
    aligned,
    launch,
    recording,
)
from driftscope_kernels.triton_kernels.softmax import softmax


@pytest.mark.skipif("os.environ.get('TRITON_INTERPRET') == '1'", reason="cpu is fine there")
def test_a_cpu_tensor_is_refused_with_what_to_do() -> None:
    with pytest.raises(DeviceError, match="TRITON_INTERPRET=1"):
        softmax(torch.ones(2, 3), -1)


def test_a_recording_lists_launches_and_runs_nothing() -> None:
    with recording() as launches:
        softmax(torch.ones(17, 3), -1)
    (one,) = launches
    assert one.grid == (3,) and one.arguments["rows"] == 17
    assert one.options["enable_fp_fusion"] is False


def test_more_than_32_bits_of_rows_are_refused() -> None:
    with recording(), pytest.raises(SizeError, match="rows = 2147483648"):
        launch(None, (1,), {"rows": 2**31})


def test_a_row_in_the_middle_is_copied_to_an_aligned_place() -> None:
    x = torch.arange(21.0).reshape(3, 7)
    assert aligned(x[1:]).data_ptr() % 16 == 0
    assert aligned(x[1:]).equal(x[1:]) and aligned(x).data_ptr() == x.data_ptr()


def test_importing_the_kernels_package_does_not_import_triton() -> None:
    code = (
        "import sys, driftscope_kernels, driftscope_kernels.ops, driftscope_kernels.triton_kernels;"
        "from driftscope_kernels import registry; registry.implementations();"
        "sys.exit('triton.language' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
