"""Linear layers: what is right, what rounding explains, ways that are exact, faults that are not.

A linear layer of float32 values is compared with sums of fractions, which round nowhere.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from driftscope_kernels.compare_ops import linear_faults, linear_ways
from driftscope_kernels.compare_ops.linear import LINEAR, ROUTER, LinearFamily
from driftscope_kernels.compare_ops.parameters import LinearParameters
from driftscope_kernels.compare_ops.variant import Inputs

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TOKENS, WIDTH, OUT = 24, 192, 96
#: Ways that drop digits which the storage dtype has: a side that does so is beyond tolerance.
COARSER = ("result", "weight", "product", "tf32", "fp16_accumulator", "ranks_", "fp8")


def _layer(
    dtype: torch.dtype, *, bias: bool = True, out: int = OUT, seed: int = 3
) -> tuple[Inputs, LinearParameters]:
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, WIDTH, generator=draw) / WIDTH**0.5
    offset = torch.randn(out, generator=draw) if bias else None
    x = torch.randn(TOKENS, WIDTH, generator=draw)
    return _inputs(x.to(dtype)), LinearParameters(
        weight.to(dtype), None if offset is None else offset.to(dtype)
    )


def _inputs(x: Tensor) -> Inputs:
    rows = torch.arange(len(x))
    return Inputs({"x": x}, rows, torch.tensor([0, len(x)]), rows)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_reference_is_the_sum_of_fractions(dtype: torch.dtype) -> None:
    inputs, parameters = _layer(dtype)
    (y,) = LINEAR.reference(inputs, parameters)
    assert parameters.bias is not None
    for row, column in ((0, 0), (7, 31), (23, 95)):
        pairs = zip(inputs["x"][row].tolist(), parameters.weight[column].tolist(), strict=True)
        exact = sum(Fraction(a) * Fraction(b) for a, b in pairs)
        exact += Fraction(parameters.bias[column].item())
        assert abs(Fraction(y[row, column].item()) - exact) < Fraction(1, 2**44)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", [LINEAR, ROUTER])
def test_the_tolerance_bounds_what_rounds(family: LinearFamily, dtype: torch.dtype) -> None:
    inputs, parameters = _layer(dtype)
    reference = family.reference(inputs, parameters)
    (tolerance,) = family.tolerance(inputs, parameters, dtype, reference)
    closest = {}
    for variant in family.variants(parameters):
        (y,) = variant.run(inputs, parameters, dtype)
        assert y.dtype == dtype
        share = float(((y.double() - reference[0]).abs() / tolerance).max())
        if dtype != torch.float32 and variant.name.startswith("ranks"):
            assert share < 1, variant.name
        if not any(word in variant.name for word in COARSER):
            assert share < 1, variant.name
            closest[variant.name] = share
    assert max(closest.values()) > 0.02  # no bound that anything would meet


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_fault_is_within_the_tolerance(dtype: torch.dtype) -> None:
    inputs, parameters = _layer(dtype, out=WIDTH)
    reference = LINEAR.reference(inputs, parameters)
    (tolerance,) = LINEAR.tolerance(inputs, parameters, dtype, reference)
    faults = LINEAR.faults(parameters)
    assert len({fault.name for fault in faults}) == len(faults) > 80
    for fault in faults:
        (y,) = fault.run(inputs, parameters, dtype)
        assert bool(((y.double() - reference[0]).abs() > tolerance).any()), fault.name


def test_ways_that_round_once_are_the_nearest_number() -> None:
    inputs, parameters = _layer(torch.bfloat16)
    (exact,) = LINEAR.reference(inputs, parameters)
    ways = {variant.name: variant for variant in LINEAR.variants(parameters)}
    (y,) = ways["correctly_rounded"].run(inputs, parameters, torch.bfloat16)
    for step in (1, -1):
        neighbour = (y.view(torch.int16) + step).view(torch.bfloat16)
        assert bool(((y.double() - exact).abs() <= (neighbour.double() - exact).abs()).all())


@pytest.mark.parametrize(("dtype", "k"), [(torch.float32, 576), (torch.bfloat16, 576)])
def test_blocks_of_known_libraries_are_among_the_ways(dtype: torch.dtype, k: int) -> None:
    """MKL adds float32 in blocks of 192 along K on AVX-512 with some rows, oneDNN in 512."""
    draw = torch.Generator().manual_seed(k)
    x, weight = (torch.randn(n, k, generator=draw).to(dtype) for n in (48, 960))
    inputs, parameters = _inputs(x), LinearParameters(weight)
    equal = {
        name: {
            variant.name
            for variant in LINEAR.variants(parameters)
            if torch.equal(variant.run(inputs, parameters, dtype)[0], y)
        }
        for name, y in (
            ("torch", F.linear(x, weight)),
            ("onednn", linear_ways.onednn(x, weight, None, dtype)),
        )
    }
    assert "library" in equal["torch"]
    assert "onednn" in equal["onednn"]
    if dtype == torch.float32:
        assert equal["onednn"] & {name for name in equal["onednn"] if "chain" in name}
        assert equal["torch"] & {name for name in equal["torch"] if "chain" in name}
        assert not equal["torch"] & equal["onednn"]


def test_a_single_row_is_as_in_a_batch_with_onednn() -> None:
    inputs, parameters = _layer(torch.float32)
    whole = linear_ways.onednn(inputs["x"], parameters.weight, parameters.bias, torch.float32)
    one = linear_ways.onednn(inputs["x"][4:5], parameters.weight, parameters.bias, torch.float32)
    assert torch.equal(one, whole[4:5])


def test_tf32_keeps_ten_bits() -> None:
    values = torch.tensor([1 + 2.0**-10, 1 + 2.0**-11, 1 + 2.0**-12, -1 - 2.0**-11])
    kept = torch.tensor([1 + 2.0**-10, 1 + 2.0**-10, 1.0, -1 - 2.0**-10])
    assert torch.equal(linear_ways.to_tf32(values), kept)


def test_fp8_keeps_three_bits_of_the_largest() -> None:
    weight = torch.tensor([[448.0, 1.0 + 2.0**-3, 1.0 + 2.0**-5], [1.0, 2.0, 3.0]])
    assert linear_ways.through_fp8(weight, per_row=False)[0].tolist() == [448.0, 1.125, 1.0]
    assert torch.allclose(linear_ways.through_fp8(weight, per_row=True)[1, 2], torch.tensor(3.0))


@pytest.mark.parametrize("name", ["bf16_weight", "fp8_weight", "tf32", "fp16_accumulator"])
def test_coarser_numbers_are_beyond_float32(name: str) -> None:
    inputs, parameters = _layer(torch.float32)
    reference = LINEAR.reference(inputs, parameters)
    (tolerance,) = LINEAR.tolerance(inputs, parameters, torch.float32, reference)
    way = {variant.name: variant for variant in LINEAR.variants(parameters)}[name]
    assert way.reason == "dtype"
    (y,) = way.run(inputs, parameters, torch.float32)
    assert bool(((y.double() - reference[0]).abs() > tolerance).any())


def test_a_routers_bias_in_bf16_is_a_fault_of_dtype() -> None:
    inputs, parameters = _layer(torch.float32)
    (fault,) = (one for one in ROUTER.faults(parameters) if one.name == "bias_bf16")
    assert parameters.bias is not None
    expected = F.linear(inputs["x"], parameters.weight, parameters.bias.bfloat16().float())
    assert torch.equal(fault.run(inputs, parameters, torch.float32)[0], expected)
    assert fault.reason == "dtype"


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_the_result_alone_tells(dtype: torch.dtype) -> None:
    inputs, parameters = _layer(dtype, bias=False)
    x, weight = inputs["x"], parameters.weight
    (plain,) = LINEAR.variants(parameters)[0].run(inputs, parameters, dtype)
    assert not LINEAR.fitted(inputs, parameters, (plain,))

    (scaled,) = LINEAR.fitted(inputs, parameters, ((plain.float() * 1.7).to(dtype),))
    assert scaled.name == "scaled"
    assert "1.7 times" in scaled.says

    order = torch.arange(OUT)
    order[8:24] = torch.cat([order[16:24], order[8:16]])
    moved = F.linear(x, weight[order])
    (found,) = LINEAR.fitted(inputs, parameters, (moved,))
    assert found.name == "rows_reordered"
    assert "16 of 96 rows" in found.says
    assert "rows 8 to 15 taken from 16 on" in found.says
    assert torch.equal(found.run(inputs, parameters, dtype)[0], moved)

    draw = torch.Generator().manual_seed(9)
    adapter = torch.randn(OUT, 3, generator=draw) @ torch.randn(3, WIDTH, generator=draw)
    (low,) = LINEAR.fitted(
        inputs, parameters, (F.linear(x.float(), weight.float() + adapter / 8).to(dtype),)
    )
    assert low.name == "adapter"
    assert "rank 3" in low.says


def test_another_weight_altogether_is_no_fitted_fault() -> None:
    inputs, parameters = _layer(torch.bfloat16)
    _, other = _layer(torch.bfloat16, seed=4)
    (seen,) = LINEAR.variants(other)[0].run(inputs, other, torch.bfloat16)
    assert not list(linear_faults.fitted(inputs, parameters, seen))


def test_a_missing_shard_is_named_with_its_place() -> None:
    inputs, parameters = _layer(torch.bfloat16, bias=False)
    weight = parameters.weight.clone()
    weight[OUT // 4 : OUT // 2] = 0
    (seen,) = LINEAR.variants(parameters)[0].run(
        inputs, replace(parameters, weight=weight), torch.bfloat16
    )
    (found,) = (
        fault
        for fault in LINEAR.faults(parameters)
        if torch.equal(fault.run(inputs, parameters, torch.bfloat16)[0], seen)
    )
    assert found.name == "zero_rows_2_of_4"
    assert found.reason == "weight"
