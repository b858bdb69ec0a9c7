"""A mixture of experts: right, and the same for a token whatever is beside it."""

import torch

from driftscope_kernels.vllm_plugin.experts import mixture, softmax_topk

EXPERTS, USED, HIDDEN, INNER, TOKENS = 6, 2, 32, 24, 9


def case(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(TOKENS, HIDDEN, generator=generator).to(dtype)
    w1 = torch.randn(EXPERTS, 2 * INNER, HIDDEN, generator=generator).to(dtype)
    w2 = torch.randn(EXPERTS, HIDDEN, INNER, generator=generator).to(dtype)
    logits = torch.randn(TOKENS, EXPERTS, generator=generator).to(dtype)
    return x, w1, w2, *softmax_topk(logits, USED, True)


def test_against_a_sum_over_experts_in_float64() -> None:
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


def test_a_token_alone_and_among_others_and_in_any_order_of_experts() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x, w1, w2, weights, ids = case(dtype)
        whole = mixture(x, w1, w2, weights, ids, (None, None))
        flipped = mixture(x, w1, w2, weights.flip(1), ids.flip(1), (None, None))
        assert torch.equal(whole, flipped)
        for token in range(TOKENS):
            one = slice(token, token + 1)
            alone = mixture(x[one], w1, w2, weights[one], ids[one], (None, None))
            assert torch.equal(alone, whole[one])


def test_weights_that_are_not_renormalised_are_probabilities() -> None:
    logits = torch.randn(TOKENS, EXPERTS, generator=torch.Generator().manual_seed(1))
    weights, ids = softmax_topk(logits, USED, False)
    expected = torch.softmax(logits.double(), -1).gather(1, ids.long())
    torch.testing.assert_close(weights.double(), expected, rtol=1e-5, atol=0)
