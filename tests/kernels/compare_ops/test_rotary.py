from __future__ import annotations

from dataclasses import replace

import mpmath  # type: ignore[import-untyped]
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import RotaryParameters
from driftscope_kernels.compare_ops.rotary import ROTARY
from driftscope_kernels.compare_ops.variant import Inputs

from . import row_ops

HEADS, KV_HEADS, HEAD_DIM = 3, 1, 32


def _frequencies(base: float, width: int = HEAD_DIM) -> Tensor:
    return 1.0 / (base ** (torch.arange(0, width, 2, dtype=torch.float) / width))


def _parameters(**changed: object) -> RotaryParameters:
    return replace(RotaryParameters(HEAD_DIM, _frequencies(1e4)), **changed)  # type: ignore[arg-type]


def _inputs(dtype: torch.dtype, seed: int, rows: int = 40, scale: float = 1.0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: (scale * torch.randn(rows, heads * HEAD_DIM, generator=generator)).to(dtype)
        for name, heads in (("q", HEADS), ("k", KV_HEADS))
    }
    return row_ops.packed(tensors, rows)


@pytest.mark.parametrize("interleaved", [False, True])
def test_the_reference_is_the_formula(interleaved: bool) -> None:
    parameters = _parameters(interleaved=interleaved, scaling=1.25)
    inputs = _inputs(torch.bfloat16, 1)
    row, head, pair = 19, 2, 3
    first, second = (6, 7) if interleaved else (3, 3 + HEAD_DIM // 2)
    x = inputs["q"][row, head * HEAD_DIM : (head + 1) * HEAD_DIM].double()
    with mpmath.workdps(40):
        angle = int(inputs.positions[row]) * mpmath.mpf(float(parameters.inverse_frequencies[pair]))
        cos, sin = mpmath.cos(angle) * 1.25, mpmath.sin(angle) * 1.25
        expected = (
            float(x[first]) * cos - float(x[second]) * sin,
            float(x[second]) * cos + float(x[first]) * sin,
        )
    turned = ROTARY.reference(inputs, parameters)[0][row, head * HEAD_DIM :]
    assert float(turned[first]) == pytest.approx(float(expected[0]), rel=1e-13)
    assert float(turned[second]) == pytest.approx(float(expected[1]), rel=1e-13)


@pytest.mark.parametrize("dtype", row_ops.DTYPES)
@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    magnitude=st.integers(-12, 8),
    offset=st.integers(0, 100_000),
    interleaved=st.booleans(),
    scaling=st.sampled_from([1.0, 1.3]),
    width=st.sampled_from([HEAD_DIM, HEAD_DIM // 2]),
)
def test_variants_are_rounding(
    dtype: torch.dtype, seed: int, magnitude: int, offset: int, interleaved: bool,
    scaling: float, width: int,
) -> None:  # fmt: skip
    parameters = _parameters(
        interleaved=interleaved, scaling=scaling, inverse_frequencies=_frequencies(1e4, width)
    )
    inputs = _inputs(dtype, seed, scale=2.0**magnitude)
    inputs = replace(inputs, positions=inputs.positions + offset)
    row_ops.check_variants(ROTARY, parameters, inputs, dtype)


@pytest.mark.parametrize("dtype", row_ops.DTYPES)
def test_differences_that_cancel_are_rounding(dtype: torch.dtype) -> None:
    """Halves in the ratio of cosine and sine: one of each pair comes out near zero."""
    inputs, parameters = _inputs(dtype, 2), _parameters()
    angles = inputs.positions[:, None] * parameters.inverse_frequencies
    pair = torch.cat([angles.sin(), angles.cos()], 1).to(dtype)
    inputs = replace(inputs, tensors={"q": pair.repeat(1, HEADS), "k": pair})
    row_ops.check_variants(ROTARY, parameters, inputs, dtype)


@pytest.mark.parametrize("dtype", row_ops.NARROW)
def test_every_difference_shows(dtype: torch.dtype) -> None:
    inputs = _inputs(dtype, 3, rows=400)
    same = row_ops.same_as_plain(ROTARY, _parameters(), inputs, dtype)
    assert same <= {"float64_angles"}  # seldom moves a table past 8 or 11 bits
    wide = _inputs(torch.float32, 3, rows=400)
    same = row_ops.same_as_plain(ROTARY, _parameters(), wide, torch.float32)
    assert not same & {"fused", "fused_cosine", "float64_angles"}


@pytest.mark.parametrize("dtype", row_ops.DTYPES)
def test_no_fault_is_taken_for_rounding(dtype: torch.dtype) -> None:
    inputs = _inputs(dtype, 4)
    parameters = _parameters(scaling=1.2)
    within = {
        name.split(", ")[0] for name in row_ops.faults_within(ROTARY, parameters, inputs, dtype)
    }
    # These positions begin anew in each sequence already.
    assert {name.split(", ")[0] for name in within} == {"positions_restart"}
    run_on = replace(inputs, positions=torch.arange(len(inputs.positions)))
    within = {
        name.split(", ")[0] for name in row_ops.faults_within(ROTARY, parameters, run_on, dtype)
    }
    assert {name.split(", ")[0] for name in within} == {"positions_run_on"}


@pytest.mark.parametrize("dtype", row_ops.DTYPES)
@pytest.mark.parametrize(
    ("says", "changed", "shift"),
    [
        ("the base is 130000", {"inverse_frequencies": _frequencies(130_000)}, 0),
        ("positions are divided by 3", {"inverse_frequencies": _frequencies(1e4) / 3}, 0),
        ("positions are shifted by +7", {}, 7),
        ("cosines and sines are multiplied by 1.2", {"scaling": 1.2}, 0),
    ],
)
def test_numbers_are_read_off_the_output(
    dtype: torch.dtype, says: str, changed: dict[str, object], shift: int
) -> None:
    inputs = _inputs(dtype, 5, rows=120)
    other = replace(inputs, positions=inputs.positions + shift)
    seen = row_ops.named(ROTARY, _parameters())["fused"].run(other, _parameters(**changed), dtype)
    found = ROTARY.fitted(inputs, _parameters(), seen)
    equal = [
        fault for fault in found if row_ops.equals(fault.run(inputs, _parameters(), dtype), seen)
    ]
    assert [fault.says for fault in equal][:1] == [says], [fault.name for fault in found]


@pytest.mark.parametrize("dtype", row_ops.DTYPES)
def test_nothing_is_read_off_a_healthy_output(dtype: torch.dtype) -> None:
    inputs = _inputs(dtype, 6, rows=120)
    for variant in ROTARY.variants(_parameters()):
        seen = variant.run(inputs, _parameters(), dtype)
        assert ROTARY.fitted(inputs, _parameters(), seen) == []


@pytest.mark.parametrize("dtype", row_ops.DTYPES)
def test_the_module_of_transformers(dtype: torch.dtype) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import (
        LlamaRotaryEmbedding,
        apply_rotary_pos_emb,
    )

    config = LlamaConfig(hidden_size=HEADS * HEAD_DIM, num_attention_heads=HEADS)
    inputs = _inputs(dtype, 7, rows=200)
    heads = [inputs[name].reshape(1, 200, -1, HEAD_DIM).transpose(1, 2) for name in ROTARY.outputs]
    tables = LlamaRotaryEmbedding(config)(heads[0], inputs.positions[None])
    theirs = tuple(
        turned.transpose(1, 2).reshape(200, -1) for turned in apply_rotary_pos_emb(*heads, *tables)
    )
    plain = ROTARY.variants(_parameters())[0]
    assert row_ops.equals(plain.run(inputs, _parameters(), dtype), theirs)


def test_products_of_16_bit_are_exact_so_fusing_them_changes_nothing() -> None:
    """Why vLLM's fused rotary is named a rounding point in 16 bit, a primitive in float32."""
    for dtype in row_ops.NARROW:
        inputs = _inputs(dtype, 8)
        named = row_ops.named(ROTARY, _parameters())
        first, second = (
            named[name].run(inputs, _parameters(), dtype) for name in ("float32", "fused")
        )
        assert row_ops.equals(first, second)
    inputs = _inputs(torch.float32, 8)
    first, second = (
        named[name].run(inputs, _parameters(), torch.float32) for name in ("float32", "fused")
    )
    assert not row_ops.equals(first, second)
