"""Paths of the host: arithmetic written here is read for what it is, torch's by its tree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import DTypeLike
from torch import Tensor
from torch.nn import functional

from driftscope_kernels.compare_ops.trees import read_tree
from driftscope_probes.fingerprint.functions import FUNCTIONS, read_functions, ulps
from driftscope_probes.fingerprint.host_paths import PATHS, HostPath, Shape, host_paths, read_path
from driftscope_probes.fingerprint.report import PathReading
from driftscope_probes.progress import Progress, discard

SHAPE: Shape = (4, 16, 24)
Linear = Callable[[Tensor, Tensor], Tensor]


def sequential(kept_in: DTypeLike, *, flush: bool = False, rounding: bool = True) -> Linear:
    """From left to right; every product is rounded before it is added."""

    def linear(x: Tensor, weight: Tensor) -> Tensor:
        left, right = x.double().numpy(), weight.double().numpy()
        if flush:
            left, right = (np.where(abs(each) < 2.0**-126, 0, each) for each in (left, right))
        total = np.zeros((len(left), len(right)), kept_in)
        for k in range(left.shape[1]):
            with np.errstate(all="ignore"):
                product = np.outer(left[:, k], right[:, k])
                product = product.astype(kept_in) if rounding else product
                total = (total + product).astype(kept_in)
        return torch.from_numpy(total).to(x.dtype)

    return linear


def read(linear: Linear, dtype: str = "fp32", shape: Shape = SHAPE) -> PathReading:
    return read_path(HostPath("linear", "one of ours", linear), dtype, shape, 1)


def test_float32_from_left_to_right() -> None:
    found = read(sequential(np.float32))
    assert found.order == "all 24 terms left to right"
    assert (found.accumulator_bits, found.sum_fraction_bits) == (32, 23)
    assert (found.rounding, found.fma) == ("nearest even", False)
    assert (found.subnormals, found.infinities) == ("kept", "kept")


def test_a_product_that_joins_unrounded() -> None:
    assert read(sequential(np.float32, rounding=False)).fma is True


def test_a_wider_accumulator() -> None:
    found = read(sequential(np.float64))
    assert (found.accumulator_bits, found.sum_fraction_bits) == (64, 52)


def test_a_narrower_accumulator() -> None:
    found = read(sequential(np.float16), "fp16")
    # Its ones vanish beside nothing that fp16 can hold, so counts come out wrong or it is seen.
    assert found.sum_fraction_bits in (None, 10)
    assert found.accumulator_bits != 32


def test_flushed_subnormals() -> None:
    assert read(sequential(np.float32, flush=True)).subnormals == "flushed in the inputs"


def test_an_order_that_is_no_tree() -> None:
    def halves(x: Tensor, weight: Tensor) -> Tensor:
        return functional.linear(x, weight) * 0.5

    found = read(halves)
    assert found.tree is None
    assert found.why
    assert found.bits  # and yet a change of it would be seen


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_torch_adds_in_the_order_that_the_kernel_check_reads(dtype: str) -> None:
    (path,) = (each for each in PATHS if each.name == "torch.nn.functional.linear")
    found = read_path(path, dtype, (16, 256, 576), 1)
    torch_dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    assert found.tree_hash == read_tree(functional.linear, 576, torch_dtype, 16).hash
    assert (found.accumulator_bits, found.rounding) == (32, "nearest even")
    assert found == read_path(path, dtype, (16, 256, 576), 1)


def test_paths_that_are_no_product() -> None:
    (path,) = (each for each in PATHS if each.op == "sum")
    found = read_path(path, "fp32", (16, 32, 64), 1)
    assert found.fma is None
    assert found.sum_fraction_bits == 23


def test_all_paths_are_asked_for_with_progress() -> None:
    seen: list[Progress] = []
    small = HostPath("linear", "small", functional.linear, ("fp32",), (SHAPE,), (SHAPE,))
    found = host_paths(seen.append, (small,))
    assert [each.threads for each in found] == [1, 2]
    assert [each.fraction for each in seen] == [0.0, 0.5]


def test_functions_err_by_what_their_formats_allow() -> None:
    found = read_functions(discard)
    assert len(found) == 3 * len(FUNCTIONS)
    for each in found:
        assert 0.4 < each.largest_error_ulp < 16, each
    assert found == read_functions(discard)


def test_an_error_is_counted_in_units_of_the_last_place() -> None:
    true = torch.tensor([1.0, 1.5, 3.0], dtype=torch.float64)
    got = (true + torch.tensor([1, 2, 4]) * 2.0**-23).float()
    assert ulps(got, true).tolist() == [1.0, 2.0, 2.0]
