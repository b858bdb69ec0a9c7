"""scaled_dot_product_attention of invariant mode against torch's own, with every kind of mask."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from driftscope_kernels.invariant_mode import invariant_mode

B, H, KH, T, D = 3, 6, 2, 19, 8
LOWER = torch.ones(T, T, dtype=torch.bool).tril()


def inputs(heads: int = H) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(B, H, T, D, generator=generator, requires_grad=True)
    k, v = (torch.randn(B, heads, T, D, generator=generator, requires_grad=True) for _ in "kv")
    return q, k, v


def masks() -> dict[str, Tensor]:
    right, left = (LOWER.expand(B, 1, T, T).clone() for _ in range(2))
    right[1, ..., 11:] = False
    left[1, ..., :6] = False
    left[1, :, :6, 0] = True  # transformers lets rows of padding see something
    lengths = torch.tensor([4, 9, 6])
    segment = torch.arange(3).repeat_interleave(lengths)
    packed = LOWER & (segment[:, None] == segment)
    window = LOWER & ~LOWER.tril(-5)
    random = torch.rand(B, 1, T, T, generator=torch.Generator().manual_seed(1)) < 0.5
    random[0, 0, 3] = False
    return {
        "right": right,
        "left": left,
        "packed": packed.expand(1, 1, T, T),
        "window": window.expand(B, 1, T, T),
        "random": random,
        "whole": torch.ones(B, 1, T, T, dtype=torch.bool),
    }


def outcome(mask: Tensor | None, heads: int = H, **options: bool) -> list[Tensor]:
    """The output and the gradients of queries, keys and values."""
    q, k, v = inputs(heads)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **options)
    weight = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
    return [y, *torch.autograd.grad((y * weight).sum(), (q, k, v))]


@pytest.mark.parametrize("name", masks())
def test_masks_mean_what_they_mean_in_torch(name: str) -> None:
    mask = masks()[name]
    with sdpa_kernel(SDPBackend.MATH):
        stock = outcome(mask)
    with invariant_mode() as mode:
        ours = outcome(mask)
    assert mode.coverage().routed["attention"] == 1
    for one, other in zip(ours, stock, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"is_causal": True}, {}])
def test_without_a_mask_too(options: dict[str, bool]) -> None:
    stock = outcome(None, **options)
    with invariant_mode():
        ours = outcome(None, **options)
    for one, other in zip(ours, stock, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_grouped_heads_have_the_bits_of_repeated_ones() -> None:
    """transformers repeats them itself where there is a mask: gradients have to agree."""
    q, k, v = inputs(KH)
    weight = torch.linspace(-1, 1, q.numel()).reshape(q.shape)

    def run(mask: Tensor | None) -> list[Tensor]:
        if mask is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            wide_k, wide_v = (
                x[:, :, None].expand(B, KH, H // KH, T, D).reshape(B, H, T, D) for x in (k, v)
            )
            y = F.scaled_dot_product_attention(q, wide_k, wide_v, attn_mask=mask)
        return [y, *torch.autograd.grad((y * weight).sum(), (q, k, v))]

    with invariant_mode():
        grouped, repeated = run(None), run(LOWER.expand(B, 1, T, T))
    assert all(map(torch.equal, grouped, repeated))


def test_a_mask_changed_in_place_is_read_again() -> None:
    q, k, v = inputs()
    mask = LOWER.expand(B, 1, T, T).clone()
    with invariant_mode(), torch.no_grad():
        before = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        mask[..., 0] = False
        after = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        assert torch.equal(after[:, :, 0], torch.zeros(B, H, D))
    assert not torch.equal(before, after)


def test_what_the_kernel_does_not_take_is_left_to_torch_and_said() -> None:
    q, k, v = inputs()
    with invariant_mode() as mode:
        F.scaled_dot_product_attention(q, k, v, attn_mask=torch.zeros(T, T))
    assert "attention" not in mode.coverage().routed
    assert any("scaled_dot_product" in name for name in mode.coverage().stock)
