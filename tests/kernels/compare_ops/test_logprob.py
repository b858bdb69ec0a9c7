from __future__ import annotations

from dataclasses import replace

import mpmath  # type: ignore[import-untyped]
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_kernels.compare_ops.logprob import LOGPROB
from driftscope_kernels.compare_ops.parameters import LogprobParameters
from driftscope_kernels.compare_ops.variant import Inputs

from . import row_ops

VOCABULARY = 1300  # two tiles and a part of a third
GEMMA = LogprobParameters(softcap=30.0)
CASES = (LogprobParameters(), GEMMA, LogprobParameters(temperature=0.7))


def _inputs(dtype: torch.dtype, seed: int, scale: float = 4.0, rows: int = 20) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn(rows, VOCABULARY, generator=generator)).to(dtype)
    tokens = torch.randint(0, VOCABULARY, (rows,), generator=generator)
    return row_ops.packed({"logits": logits}, rows, tokens)


def test_the_reference_is_the_formula() -> None:
    parameters = LogprobParameters(temperature=0.8, softcap=20.0)
    inputs = _inputs(torch.bfloat16, 1, 15.0)
    with mpmath.workdps(40):
        row = [
            20 * mpmath.tanh(mpmath.mpf(float(x)) / 20) / mpmath.mpf(0.8)
            for x in inputs["logits"][4]
        ]
        exact = row[int(inputs.tokens[4])] - mpmath.log(sum(mpmath.exp(x) for x in row))
    (found,) = LOGPROB.reference(inputs, parameters)
    assert float(found[4]) == pytest.approx(float(exact), rel=1e-13)


@pytest.mark.parametrize("parameters", CASES)
@pytest.mark.parametrize("dtype", row_ops.DTYPES)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**20), magnitude=st.integers(-3, 6))
def test_variants_are_rounding(
    dtype: torch.dtype, parameters: LogprobParameters, seed: int, magnitude: int
) -> None:
    inputs = _inputs(dtype, seed, 2.0**magnitude)
    row_ops.check_variants(LOGPROB, parameters, inputs, torch.float32)


@pytest.mark.parametrize("value", [0.0, 5.0, 200.0])
def test_equal_logits_are_rounding(value: float) -> None:
    """All additions of Σ exp round the same way."""
    inputs = _inputs(torch.float32, 2)
    inputs = replace(inputs, tensors={"logits": torch.full_like(inputs["logits"], value)})
    row_ops.check_variants(LOGPROB, LogprobParameters(), inputs, torch.float32)


def test_every_difference_shows() -> None:
    inputs = _inputs(torch.float32, 3, rows=400)
    assert row_ops.same_as_plain(LOGPROB, LogprobParameters(), inputs, torch.float32) == set()
    inputs = _inputs(torch.bfloat16, 3, rows=100)
    assert row_ops.same_as_plain(LOGPROB, GEMMA, inputs, torch.float32) == set()
    warm = LogprobParameters(temperature=0.7)
    assert row_ops.same_as_plain(LOGPROB, warm, inputs, torch.float32) == set()


def test_no_fault_is_taken_for_rounding() -> None:
    inputs = _inputs(torch.float32, 4, 10.0)
    for parameters in CASES:
        within = set(row_ops.faults_within(LOGPROB, parameters, inputs, torch.float32))
        assert within == set()


def test_bfloat16_log_softmax_is_named() -> None:
    inputs = _inputs(torch.float32, 5)
    narrow = torch.log_softmax(inputs["logits"].bfloat16(), -1)
    theirs = narrow.gather(1, inputs.tokens[:, None]).float()
    equal = [
        fault
        for fault in LOGPROB.faults(LogprobParameters())
        if row_ops.equals(fault.run(inputs, LogprobParameters(), torch.float32), (theirs,))
    ]
    assert [(fault.name, fault.reason) for fault in equal] == [("bf16_log_softmax", "dtype")]


@pytest.mark.parametrize("dtype", row_ops.DTYPES)
@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (LogprobParameters(temperature=1.35), "the temperature is 1.35, not 1"),
        (LogprobParameters(softcap=25.0), "logits are capped at 25"),
    ],
)
def test_numbers_are_read_off_the_output(
    dtype: torch.dtype, changed: LogprobParameters, says: str
) -> None:
    inputs = _inputs(dtype, 6, 8.0, rows=64)
    seen = LOGPROB.variants(changed)[0].run(inputs, changed, torch.float32)
    found = LOGPROB.fitted(inputs, LogprobParameters(), seen)
    equal = [
        fault
        for fault in found
        if row_ops.equals(fault.run(inputs, LogprobParameters(), torch.float32), seen)
    ]
    assert [fault.says for fault in equal][:1] == [says], [fault.name for fault in found]


@pytest.mark.parametrize("parameters", CASES)
def test_nothing_is_read_off_a_healthy_output(parameters: LogprobParameters) -> None:
    inputs = _inputs(torch.float32, 7, 8.0, rows=64)
    for variant in LOGPROB.variants(parameters):
        seen = variant.run(inputs, parameters, torch.float32)
        found = LOGPROB.fitted(inputs, parameters, seen)
        assert all(
            not row_ops.equals(fault.run(inputs, parameters, torch.float32), seen)
            for fault in found
        )
