"""A mixture's choice and experts: against plain float64, and against transformers' own modules."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts, Qwen3MoeTopKRouter

from driftscope_kernels.compare_ops import experts_ways
from driftscope_kernels.compare_ops.linear import ROUTER
from driftscope_kernels.compare_ops.mixture import EXPERTS, TOP_K
from driftscope_kernels.compare_ops.parameters import (
    ExpertsParameters,
    LinearParameters,
    TopKParameters,
)
from driftscope_kernels.compare_ops.variant import Inputs, Outputs

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TOKENS, WIDTH, INNER, COUNT, USED = 24, 64, 32, 8, 2
IMPLEMENTATIONS = {"grouped_mm": "grouped", "eager": "index_add", "batched_mm": "batched"}


def _inputs(**tensors: Tensor) -> Inputs:
    rows = torch.arange(TOKENS)
    return Inputs(tensors, rows, torch.tensor([0, TOKENS]), rows)


def _logits(dtype: torch.dtype, experts: int = COUNT) -> Tensor:
    draw = torch.Generator().manual_seed(11)
    return (2 * torch.randn(TOKENS, experts, generator=draw)).to(dtype)


def _mixture(dtype: torch.dtype) -> tuple[Inputs, ExpertsParameters]:
    draw = torch.Generator().manual_seed(5)
    x = torch.randn(TOKENS, WIDTH, generator=draw).to(dtype)
    gate_up = torch.randn(COUNT, 2 * INNER, WIDTH, generator=draw) / WIDTH**0.5
    down = torch.randn(COUNT, WIDTH, INNER, generator=draw) / INNER**0.5
    chosen = TOP_K.variants(TopKParameters(USED, True))[0].run(
        _inputs(logits=_logits(dtype)), TopKParameters(USED, True), torch.float32
    )
    inputs = _inputs(x=x, weights=chosen[0], experts=chosen[1])
    return inputs, ExpertsParameters(gate_up.to(dtype), down.to(dtype), "silu")


def _exact(outputs: Outputs, seen: Outputs) -> bool:
    return all(torch.equal(a, b) for a, b in zip(outputs, seen, strict=True))


@pytest.mark.parametrize("renormalise", [True, False])
def test_the_choice_is_plain_arithmetic(renormalise: bool) -> None:
    logits = _logits(torch.float32)
    weights, experts = TOP_K.reference(_inputs(logits=logits), TopKParameters(USED, renormalise))
    for row in range(TOKENS):
        values = np.exp(logits[row].double().numpy())
        best = np.argsort(-values)[:USED]
        total = values[best].sum() if renormalise else values.sum()
        assert experts[row].tolist() == best.tolist()
        np.testing.assert_allclose(weights[row].numpy(), values[best] / total, rtol=1e-12)


BIAS = torch.linspace(-0.3, 0.3, COUNT).sin()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [None, BIAS])
@pytest.mark.parametrize("renormalise", [True, False])
def test_the_tolerance_parts_ways_of_choosing_from_faults(
    dtype: torch.dtype, bias: Tensor | None, renormalise: bool
) -> None:
    parameters = TopKParameters(USED, renormalise, bias)
    inputs = _inputs(logits=_logits(dtype))
    reference = TOP_K.reference(inputs, parameters)
    tolerance = TOP_K.tolerance(inputs, parameters, dtype, reference)

    def within(outputs: Outputs) -> bool:
        trios = zip(outputs, reference, tolerance, strict=True)
        return all(bool(((o.double() - r).abs() <= t).all()) for o, r, t in trios)

    for variant in TOP_K.variants(parameters):
        # A side that rounds scores before it chooses may choose another expert.
        if not variant.name.endswith("_in_dtype") or variant.name.startswith("softmax_chosen"):
            assert within(variant.run(inputs, parameters, dtype)), variant.name
    for fault in TOP_K.faults(parameters):
        if fault.reason != "dtype":
            assert not within(fault.run(inputs, parameters, dtype)), fault.name


def test_of_equal_scores_either_may_come_first() -> None:
    logits = torch.zeros(TOKENS, COUNT)
    parameters, inputs = TopKParameters(USED, True), _inputs(logits=logits)
    ways = {variant.name: variant for variant in TOP_K.variants(parameters)}
    lowest = ways["ties_lowest_first"].run(inputs, parameters, torch.float32)[1]
    highest = ways["ties_highest_first"].run(inputs, parameters, torch.float32)[1]
    assert lowest[0].tolist() == [0, 1]
    assert highest[0].tolist() == [COUNT - 1, COUNT - 2]
    reference = TOP_K.reference(inputs, parameters)
    assert bool(TOP_K.tolerance(inputs, parameters, torch.float32, reference)[1].isinf().all())


def test_a_rounded_bias_chooses_other_experts_at_times() -> None:
    draw = torch.Generator().manual_seed(2)
    logits = torch.randn(TOKENS, 128, generator=draw)
    bias = 0.5 + torch.randn(128, generator=draw) / 20
    parameters, inputs = TopKParameters(8, True, bias), _inputs(logits=logits)
    (fault,) = (one for one in TOP_K.faults(parameters) if one.name == "bias_bf16")
    plain = TOP_K.variants(parameters)[0]
    changed, ours = (one.run(inputs, parameters, torch.float32)[1] for one in (fault, plain))
    assert fault.reason == "dtype"
    assert 0.0 < float((changed != ours).double().mean()) < 0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_transformers_router_is_equalled(dtype: torch.dtype) -> None:
    config = Qwen3MoeConfig(
        hidden_size=WIDTH, num_experts=COUNT, num_experts_per_tok=USED, norm_topk_prob=True
    )
    inputs, _ = _mixture(dtype)
    module = Qwen3MoeTopKRouter(config).to(dtype)
    draw = torch.Generator().manual_seed(8)
    weight = (torch.randn(COUNT, WIDTH, generator=draw) / WIDTH**0.5).to(dtype)
    module.weight.data = weight
    with torch.no_grad():
        logits, weights, experts = module(inputs["x"])
    parameters = LinearParameters(weight)
    assert _exact(ROUTER.variants(parameters)[0].run(inputs, parameters, dtype), (logits,))
    chosen = TopKParameters(USED, True)
    first = TOP_K.variants(chosen)[0].run(_inputs(logits=logits), chosen, dtype)
    assert _exact(first, (weights, experts))


@pytest.mark.avx512  # MKL's products of few rows add in another order elsewhere
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_transformers_experts_are_equalled(implementation: str, dtype: torch.dtype) -> None:
    inputs, parameters = _mixture(dtype)
    config = Qwen3MoeConfig(
        hidden_size=WIDTH, moe_intermediate_size=INNER, num_experts=COUNT, hidden_act="silu"
    )
    config._experts_implementation = implementation
    module = Qwen3MoeExperts(config).to(dtype)
    module.gate_up_proj.data, module.down_proj.data = parameters.gate_up, parameters.down
    weights = inputs["weights"].to(dtype)
    with torch.no_grad():
        out = module(inputs["x"], inputs["experts"], weights)
    given = _inputs(x=inputs["x"], weights=weights, experts=inputs["experts"])
    ways = {variant.name: variant for variant in EXPERTS.variants(parameters)}
    (y,) = ways[IMPLEMENTATIONS[implementation]].run(given, parameters, dtype)
    assert torch.equal(y, out)


def test_the_experts_reference_is_plain_arithmetic() -> None:
    inputs, parameters = _mixture(torch.float32)
    (out,) = EXPERTS.reference(inputs, parameters)
    for row in (0, 13):
        total = np.zeros(WIDTH)
        for place in range(USED):
            expert = int(inputs["experts"][row, place])
            inner = parameters.gate_up[expert].double().numpy() @ inputs["x"][row].double().numpy()
            gate, up = np.split(inner, 2)
            part = parameters.down[expert].double().numpy() @ (gate / (1 + np.exp(-gate)) * up)
            total += float(inputs["weights"][row, place]) * part
        np.testing.assert_allclose(out[row].numpy(), total, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_tolerance_parts_ways_of_experts_from_faults(dtype: torch.dtype) -> None:
    inputs, parameters = _mixture(dtype)
    reference = EXPERTS.reference(inputs, parameters)
    (tolerance,) = EXPERTS.tolerance(inputs, parameters, dtype, reference)
    shares = {}
    for variant in EXPERTS.variants(parameters):
        (out,) = variant.run(inputs, parameters, dtype)
        assert out.dtype == dtype
        shares[variant.name] = float(((out.double() - reference[0]).abs() / tolerance).max())
    assert 0.02 < max(shares.values()) < 1, shares
    for fault in EXPERTS.faults(parameters):
        (out,) = fault.run(inputs, parameters, dtype)
        assert bool(((out.double() - reference[0]).abs() > tolerance).any()), fault.name


def test_vllms_exp_is_exp_to_float32() -> None:
    x = torch.linspace(-87, 88, 20_001)
    share = (experts_ways.vllm_exp(x).double() / x.double().exp() - 1).abs()
    assert 1e-8 < float(share.max()) < 1e-6
    ends = experts_ways.vllm_exp(torch.tensor([-88.0, -torch.inf, 0.0]))
    assert ends[:2].tolist() == [0.0, 0.0]
    assert float(ends[2]) == 1.0


def test_vllms_way_rounds_inner_features_and_the_sum_once() -> None:
    """A mixture whose numbers are exact but for those two roundings."""
    one = SimpleNamespace(x=torch.tensor([[1.0, 2.0]]), weights=torch.tensor([[0.5, 0.25]]))
    gate_up = torch.tensor([[[64.0, 0.0], [1.0, 2.0**-9]], [[0.0, 32.0], [1.0, 0.0]]])
    down = torch.tensor([[[1.0], [2.0**-9]], [[1.0], [1.0]]])
    routed = experts_ways.Routed(one.x, one.weights, torch.tensor([[0, 1]]))
    given = ExpertsParameters(gate_up, down, "silu")
    wide = experts_ways.vllm_cpu(routed, given, torch.float32)
    first, second = 64 * (1 + 2.0**-8), 64.0
    assert wide.tolist() == [[0.5 * first + 0.25 * second, 0.5 * first * 2.0**-9 + 0.25 * second]]
    narrow = experts_ways.vllm_cpu(routed, given, torch.bfloat16)
    inner = float(torch.tensor(first).bfloat16())
    expected = torch.tensor([[0.5 * inner + 16.0, 0.5 * inner * 2.0**-9 + 16.0]]).bfloat16()
    assert torch.equal(narrow, expected)


def test_a_mixture_of_one_expert_is_a_gated_layer() -> None:
    inputs, parameters = _mixture(torch.float32)
    gate, up = F.linear(inputs["x"], parameters.gate_up[3]).chunk(2, -1)
    alone = _inputs(
        x=inputs["x"],
        weights=torch.ones(TOKENS, 1),
        experts=torch.full((TOKENS, 1), 3, dtype=torch.int32),
    )
    (out,) = EXPERTS.variants(parameters)[0].run(alone, parameters, torch.float32)
    assert torch.equal(out, F.linear(F.silu(gate) * up, parameters.down[3]))
