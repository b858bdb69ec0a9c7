from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from driftscope_kernels.compare_ops.norm import NORM, RESIDUAL_NORM
from driftscope_kernels.compare_ops.parameters import NormParameters

from . import row_ops

WIDTH = 96


def _parameters(dtype: torch.dtype, seed: int = 0, offset: bool = False) -> NormParameters:
    generator = torch.Generator().manual_seed(seed)
    weight = float(not offset) + 0.2 * torch.randn(WIDTH, generator=generator)
    return NormParameters(weight.to(dtype), 1e-5, offset)


def _rows(dtype: torch.dtype, seed: int, scale: float = 1.0, rows: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(rows, WIDTH, generator=generator)).to(dtype)


def _residual(
    dtype: torch.dtype, seed: int, scale: float = 1.0, rows: int = 24
) -> dict[str, Tensor]:
    return {
        "update": _rows(dtype, seed, scale, rows),
        "stream": _rows(dtype, seed + 1, 3 * scale, rows),
    }


def test_the_reference_is_the_formula() -> None:
    parameters = _parameters(torch.bfloat16)
    assert parameters.weight is not None
    inputs = row_ops.packed(_residual(torch.bfloat16, 1), 24)
    stream, normed = RESIDUAL_NORM.reference(inputs, parameters)
    row = [
        Fraction(float(a)) + Fraction(float(b))
        for a, b in zip(inputs["update"][3], inputs["stream"][3], strict=True)
    ]
    mean = sum(value * value for value in row) / WIDTH + Fraction(parameters.epsilon)
    for feature in (0, 41, 95):
        exact = row[feature] * Fraction(float(parameters.weight[feature]))
        assert float(normed[3, feature]) == pytest.approx(float(exact) / float(mean) ** 0.5, 1e-14)
        assert float(stream[3, feature]) == float(row[feature])


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("dtype", row_ops.DTYPES)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**20), magnitude=st.integers(-6, 6))
def test_variants_are_rounding(dtype: torch.dtype, offset: bool, seed: int, magnitude: int) -> None:
    parameters = _parameters(dtype, seed, offset)
    # Squares of 2^6 · 4σ still fit in float16.
    inputs = row_ops.packed(_residual(dtype, seed, 2.0 ** min(magnitude, 4), 6), 6)
    row_ops.check_variants(RESIDUAL_NORM, parameters, inputs, dtype)
    alone = row_ops.packed({"x": inputs["stream"]}, 6)
    row_ops.check_variants(NORM, parameters, alone, dtype)


@pytest.mark.parametrize("dtype", row_ops.DTYPES)
def test_sums_that_cancel_are_rounding(dtype: torch.dtype) -> None:
    stream = _rows(dtype, 5, 40.0)
    inputs = row_ops.packed({"stream": stream, "update": (-stream.float() * 0.99).to(dtype)}, 24)
    row_ops.check_variants(RESIDUAL_NORM, _parameters(dtype), inputs, dtype)


@pytest.mark.parametrize("dtype", row_ops.NARROW)
def test_every_difference_shows(dtype: torch.dtype) -> None:
    """A change of one order of additions shows in float32 alone; all others in 16 bit."""
    inputs = row_ops.packed(_residual(dtype, 2, rows=400), 400)
    same = row_ops.same_as_plain(RESIDUAL_NORM, _parameters(dtype), inputs, dtype)
    assert all(
        name in ("lanes", "float64_sum", "division", "exact_rsqrt", "division+lanes",
                 "division+float64_sum", "exact_rsqrt+lanes", "exact_rsqrt+float64_sum")
        for name in same
    )  # fmt: skip
    wide = row_ops.packed(_residual(torch.float32, 2, rows=400), 400)
    same = row_ops.same_as_plain(RESIDUAL_NORM, _parameters(torch.float32), wide, torch.float32)
    assert not same & {"lanes", "float64_sum", "division", "exact_rsqrt"}


@pytest.mark.parametrize("dtype", row_ops.DTYPES)
def test_no_fault_is_taken_for_rounding(dtype: torch.dtype) -> None:
    """Of small rows, which alone tell one epsilon from another."""
    inputs = row_ops.packed(_residual(dtype, 3, 2.0**-9), 24)
    within = set(row_ops.faults_within(RESIDUAL_NORM, _parameters(dtype), inputs, dtype))
    assert within == set()


@pytest.mark.parametrize("seen_epsilon", [1e-6, 3e-6, 1e-4])
@pytest.mark.parametrize("dtype", row_ops.DTYPES)
def test_epsilon_is_read_off_the_output(dtype: torch.dtype, seen_epsilon: float) -> None:
    parameters = _parameters(dtype)
    inputs = row_ops.packed(_residual(dtype, 3, 2.0**-9, 64), 64)
    engine = row_ops.named(RESIDUAL_NORM, parameters)["float32_sum"]
    seen = engine.run(inputs, replace(parameters, epsilon=seen_epsilon), dtype)
    found = RESIDUAL_NORM.fitted(inputs, parameters, seen)
    equal = [fault for fault in found if row_ops.equals(fault.run(inputs, parameters, dtype), seen)]
    assert equal and all(fault.reason == "formula" for fault in equal)
    assert f"epsilon is {seen_epsilon:g}, not 1e-05" == equal[0].says


@pytest.mark.parametrize("dtype", row_ops.DTYPES)
def test_no_epsilon_is_read_off_a_healthy_output(dtype: torch.dtype) -> None:
    parameters = _parameters(dtype)
    for scale in (1.0, 2.0**-9):
        inputs = row_ops.packed(_residual(dtype, 3, scale, 64), 64)
        for variant in RESIDUAL_NORM.variants(parameters)[:3]:
            seen = variant.run(inputs, parameters, dtype)
            for fault in RESIDUAL_NORM.fitted(inputs, parameters, seen):
                assert not row_ops.equals(fault.run(inputs, parameters, dtype), seen)


@pytest.mark.parametrize("dtype", row_ops.DTYPES)
def test_modules_of_transformers(dtype: torch.dtype) -> None:
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    x = _rows(dtype, 7, rows=200)
    for module, offset in ((LlamaRMSNorm, False), (GemmaRMSNorm, True)):
        parameters = _parameters(dtype, 8, offset)
        norm = module(WIDTH, parameters.epsilon).to(dtype)
        assert parameters.weight is not None
        norm.weight.data.copy_(parameters.weight)
        plain = NORM.variants(parameters)[0]
        inputs = row_ops.packed({"x": x}, 200)
        with torch.no_grad():
            assert row_ops.equals(plain.run(inputs, parameters, dtype), (norm(x[None])[0],))


@pytest.mark.parametrize("dtype", row_ops.NARROW)
def test_torch_multiplies_before_the_cast(dtype: torch.dtype) -> None:
    parameters = _parameters(dtype)
    inputs = row_ops.packed({"x": _rows(dtype, 7, rows=200)}, 200)
    theirs = F.rms_norm(inputs["x"], (WIDTH,), parameters.weight, parameters.epsilon)
    variants = row_ops.named(NORM, parameters)
    assert row_ops.equals(variants["before_cast"].run(inputs, parameters, dtype), (theirs,))
    assert not row_ops.equals(variants["plain"].run(inputs, parameters, dtype), (theirs,))


def test_heads_are_normed_each_by_itself() -> None:
    parameters = _parameters(torch.float32)
    x = torch.cat([_rows(torch.float32, 1), 50 * _rows(torch.float32, 2)], 1)
    (normed,) = NORM.variants(parameters)[0].run(
        row_ops.packed({"x": x}, 24), parameters, torch.float32
    )
    alone = [
        NORM.variants(parameters)[0].run(
            row_ops.packed({"x": half.contiguous()}, 24), parameters, torch.float32
        )[0]
        for half in x.split(WIDTH, 1)  # type: ignore[no-untyped-call]
    ]
    assert torch.equal(normed, torch.cat(alone, 1))


def test_rows_of_more_bits_are_rounded_first() -> None:
    """A float32 trainer's rows given to the op of a bfloat16 engine."""
    inputs = row_ops.packed(_residual(torch.float32, 4), 24)
    row_ops.check_variants(RESIDUAL_NORM, _parameters(torch.bfloat16), inputs, torch.bfloat16)
