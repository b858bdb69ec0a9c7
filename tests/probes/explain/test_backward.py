"""Gradients of a way: those of the live module where it is one, and near to float64's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from driftscope_kernels.compare_ops.parameters import NormParameters, Parameters, RotaryParameters
from driftscope_kernels.compare_ops.registry import FAMILIES
from driftscope_kernels.compare_ops.variant import Inputs
from driftscope_probes.explain import backward
from driftscope_probes.explain.backward import gradients, relative_error, upstream
from driftscope_probes.explain.judged import Seen
from driftscope_probes.explain.planted.families import save
from driftscope_probes.explain.report import Parts

from .engine_process import answered

SCRIPT = Path(__file__).with_name("pair_script.py")
TOKENS, WIDTH = 5, 64
DTYPES = st.sampled_from([torch.bfloat16, torch.float16, torch.float32])


def normal(seed: int, dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def seen(parameters: Parameters, outputs: int, **tensors: Tensor) -> Seen:
    rows = torch.arange(TOKENS)
    inputs = Inputs(tensors, rows, torch.tensor([0, TOKENS]), rows)
    (first, *_) = tensors.values()
    return Seen(inputs, (torch.empty_like(first),) * outputs, parameters)


@given(seed=st.integers(0, 10_000), dtype=DTYPES)
def test_the_plain_norm_has_the_gradient_of_the_live_module(seed: int, dtype: torch.dtype) -> None:
    module = LlamaRMSNorm(WIDTH, eps=1e-5).to(dtype)
    module.weight.data.copy_(normal(seed + 1, dtype, WIDTH))
    x = normal(seed, dtype, TOKENS, WIDTH).requires_grad_()
    y = module(x)
    expected = torch.autograd.grad(y, [x, module.weight], upstream(y, dtype))
    parameters = NormParameters(module.weight.data, 1e-5)
    found = gradients(FAMILIES["norm"].variants(parameters)[0], seen(parameters, 1, x=x.detach()))
    assert list(found) == ["x", "weight"]
    assert all(torch.equal(a, b) for a, b in zip(found.values(), expected, strict=True))


@given(seed=st.integers(0, 10_000), dtype=DTYPES)
def test_plain_rotary_has_the_gradient_of_the_live_function(seed: int, dtype: torch.dtype) -> None:
    frequencies = 10000.0 ** -(torch.arange(0, WIDTH, 2) / WIDTH)
    angles = torch.arange(TOKENS)[:, None] * frequencies
    cos, sin = (torch.cat([f(angles)] * 2, 1)[None].to(dtype) for f in (torch.cos, torch.sin))
    q, k = (normal(seed + i, dtype, TOKENS, WIDTH).requires_grad_() for i in range(2))
    turned = apply_rotary_pos_emb(q[None, None], k[None, None], cos, sin)
    given = [upstream(q, dtype)[None, None]] * 2
    expected = torch.autograd.grad(turned, [q, k], given)
    parameters = RotaryParameters(WIDTH, frequencies)
    plain = FAMILIES["rotary"].variants(parameters)[0]
    found = gradients(plain, seen(parameters, 2, q=q.detach(), k=k.detach()))
    assert all(torch.equal(a, b) for a, b in zip(found.values(), expected, strict=True))


def test_the_weight_of_an_output_layer_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(0, torch.float32, TOKENS, 8)
    parameters = NormParameters(torch.ones(8), 1e-5)
    plain, given_inputs = FAMILIES["norm"].variants(parameters)[0], seen(parameters, 1, x=x)
    assert set(gradients(plain, given_inputs)) == {"x", "weight"}
    monkeypatch.setattr(backward, "MOST_WEIGHT", 7)
    assert set(gradients(plain, given_inputs)) == {"x"}


def test_relative_error_of_what_is_no_number() -> None:
    right = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert relative_error(torch.tensor([3.0, 4.5]), right) == pytest.approx(0.1)
    assert relative_error(torch.zeros(2), 0 * right) == 0.0
    assert relative_error(torch.ones(2), 0 * right) == float("inf")
    assert relative_error(torch.tensor([torch.nan, 1.0]), right) == float("inf")


def test_a_real_pair(tmp_path: Path) -> None:
    folder = tmp_path / "llama"
    save("llama", folder)
    request = {
        "model": "llama",
        "full_vocab": True,
        "sampling": {"max_tokens": 6},
        "engine": {"threads": 1},
        "trainer": {"threads": 1},
    }
    (answer,) = answered(SCRIPT, [{"folder": str(folder), "request": request}], tmp_path)
    parts = Parts(**answer["parts"])
    found = {op.op: op.backward for op in parts.ops}
    assert set(found) == {"rotary", "residual_norm", "attention"}
    for gradient in found.values():
        assert gradient is not None
        assert 0.2 < gradient.equal_fraction < 1.0
        # bfloat16 rounds to 2⁻⁹; a few roundings in a row.
        assert 0.0 < gradient.error < 2**-6
        assert gradient.engine_error is not None
        assert 0.0 < gradient.engine_error < 2**-6
    rotary, attention = found["rotary"], found["attention"]
    assert rotary is not None
    assert attention is not None
    assert (rotary.trainer_way, rotary.engine_way) == ("plain", "float32")
    # vLLM's exponential works on the bits of its numbers: it has no gradient.
    assert (attention.engine_way or "").endswith("(nearest with one)")
    whole = parts.full_vocabulary
    assert whole is not None
    assert whole.equal_tokens < 1.0
    assert 0.0 < whole.kl_engine_trainer_mean < 0.01
