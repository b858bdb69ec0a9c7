"""A mixture of experts: right, and the same for a token whatever is beside it."""

import pytest
import torch
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

from driftscope_kernels import ops
from driftscope_kernels.invariant_mode import invariant_mode
from driftscope_kernels.vllm_plugin import rounding
from driftscope_kernels.vllm_plugin.experts import mixture, softmax_topk

pytestmark = pytest.mark.usefixtures("use_rounding")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PRESETS = ("transformers", "vllm")
EXPERTS, USED, HIDDEN, INNER, TOKENS = 6, 2, 32, 24, 9


def case(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(TOKENS, HIDDEN, generator=generator).to(dtype)
    w1 = torch.randn(EXPERTS, 2 * INNER, HIDDEN, generator=generator).to(dtype)
    w2 = torch.randn(EXPERTS, HIDDEN, INNER, generator=generator).to(dtype)
    logits = torch.randn(TOKENS, EXPERTS, generator=generator).to(dtype)
    return x, w1, w2, *softmax_topk(logits, USED, True)


@pytest.mark.parametrize("preset", PRESETS)
def test_against_a_sum_over_experts_in_float64(preset: str) -> None:
    rounding.use(preset)
    x, w1, w2, weights, ids = case()
    expected = torch.zeros(TOKENS, HIDDEN, dtype=torch.float64)
    for token in range(TOKENS):
        for place in range(USED):
            expert = int(ids[token, place])
            both = w1[expert].double() @ x[token].double()
            inner = torch.nn.functional.silu(both[:INNER]) * both[INNER:]
            expected[token] += weights[token, place].double() * (w2[expert].double() @ inner)
    found = mixture(x, w1, w2, weights, ids, (None, None))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_token_alone_and_among_others(dtype: torch.dtype, preset: str) -> None:
    rounding.use(preset)
    x, w1, w2, weights, ids = case(dtype)
    whole = mixture(x, w1, w2, weights, ids, (None, None))
    for token in range(TOKENS):
        one = slice(token, token + 1)
        alone = mixture(x[one], w1, w2, weights[one], ids[one], (None, None))
        assert torch.equal(alone, whole[one])


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_float32_the_order_of_experts_is_their_number(dtype: torch.dtype) -> None:
    rounding.use("vllm")
    x, w1, w2, weights, ids = case(dtype)
    flipped = mixture(x, w1, w2, weights.flip(1), ids.flip(1), (None, None))
    assert torch.equal(mixture(x, w1, w2, weights, ids, (None, None)), flipped)


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_transformers_in_invariant_mode(dtype: torch.dtype, renormalise: bool) -> None:
    config = Qwen3MoeConfig(
        hidden_size=HIDDEN, moe_intermediate_size=INNER, num_experts=EXPERTS,
        num_experts_per_tok=4, norm_topk_prob=renormalise,
    )  # fmt: skip
    config._experts_implementation = "grouped_mm"
    torch.manual_seed(0)
    block = Qwen3MoeSparseMoeBlock(config)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    block.to(dtype)
    x = torch.randn(TOKENS, HIDDEN).to(dtype)
    with torch.no_grad(), invariant_mode():
        expected = block(x[None])[0]
    logits = ops.linear(x, block.gate.weight.detach())
    w1, w2 = (p.detach() for p in (block.experts.gate_up_proj, block.experts.down_proj))
    found = {}
    for preset in PRESETS:
        rounding.use(preset)
        weights, ids = softmax_topk(logits, 4, renormalise)
        found[preset] = mixture(x, w1, w2, weights, ids, (None, None))
    assert torch.equal(found["transformers"], expected)
    assert not torch.equal(found["vllm"], expected)


@pytest.mark.parametrize("preset", PRESETS)
def test_weights_that_are_not_renormalised_are_probabilities(preset: str) -> None:
    rounding.use(preset)
    logits = torch.randn(TOKENS, EXPERTS, generator=torch.Generator().manual_seed(1))
    weights, ids = softmax_topk(logits, USED, False)
    expected = torch.softmax(logits.double(), -1).gather(1, ids.long())
    torch.testing.assert_close(weights.double(), expected, rtol=1e-5, atol=0)
