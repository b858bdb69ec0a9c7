"""Trees of torch's own products: a plain sum in the order that was read has their bits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from driftscope_kernels.compare_ops.tree_shape import Node, Tree, difference
from driftscope_kernels.compare_ops.trees import Linear, UnreadableTreeError, read_tree, summed

FLOAT32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")  # type: ignore[no-any-return]


def _drawn(rows: int, k: int, columns: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(k)
    x, weight = (torch.randn(n, k, generator=draw).to(dtype) for n in (rows, columns))
    return x, weight


@pytest.mark.parametrize(
    ("linear", "dtype", "k", "rows", "columns"),
    [
        (F.linear, FLOAT32, 576, 48, 960),
        # For few rows MKL's kernels for AVX2 mix two orders.
        pytest.param(F.linear, FLOAT32, 1536, 7, 64, marks=pytest.mark.avx512),
        (F.linear, FLOAT32, 576, 1, 960),
        (F.linear, BF16, 576, 48, 960),
        (F.linear, BF16, 300, 1, 64),
        (F.linear, FP16, 576, 3, 128),
        (F.linear, FP16, 100, 1, 64),
        (_onednn, FLOAT32, 576, 48, 960),
        (_onednn, FLOAT32, 1536, 7, 64),
        (_onednn, FLOAT32, 576, 1, 960),
    ],
)
def test_a_sum_in_the_order_read_has_the_bits(
    linear: Linear, dtype: torch.dtype, k: int, rows: int, columns: int
) -> None:
    tree = read_tree(linear, k, dtype, rows, columns)
    assert tree.leaves == k
    x, weight = _drawn(rows, k, columns, dtype)
    expected = linear(x, weight)
    # A tree does not tell whether a product is rounded before it is added.
    sums = [summed(tree, x, weight, fused=fused).to(dtype) for fused in (True, False)]
    assert any(torch.equal(one, expected) for one in sums)


def test_another_order_has_other_bits() -> None:
    """The comparison above can fail: MKL's order does not give oneDNN's bits."""
    ours, theirs = (read_tree(one, 576, FLOAT32, 48, 960) for one in (F.linear, _onednn))
    assert difference(ours, theirs)
    x, weight = _drawn(48, 576, 960, FLOAT32)
    assert not torch.equal(summed(ours, x, weight), _onednn(x, weight))


def _in_blocks(length: int) -> Linear:
    def linear(x: Tensor, weight: Tensor) -> Tensor:
        total = torch.zeros(len(x), len(weight))
        for part, other in zip(
            torch.split(x, length, 1), torch.split(weight, length, 1), strict=True
        ):
            block = torch.zeros_like(total)
            for k in range(part.shape[1]):
                block = block + part[:, k, None].float() * other[None, :, k].float()
            total = total + block
        return total

    return linear


def _in_lanes(lanes: int) -> Linear:
    def linear(x: Tensor, weight: Tensor) -> Tensor:
        total = torch.zeros(len(x), len(weight), lanes)
        for part, other in zip(
            torch.split(x, lanes, 1), torch.split(weight, lanes, 1), strict=True
        ):
            total = total + part[:, None].float() * other[None].float()
        while total.shape[2] > 1:
            total = total[..., : total.shape[2] // 2] + total[..., total.shape[2] // 2 :]
        return total[..., 0]

    return linear


def _backwards(x: Tensor, weight: Tensor) -> Tensor:
    return _in_blocks(x.shape[1])(x.flip(1), weight.flip(1))


@pytest.mark.parametrize(
    ("linear", "summary", "text"),
    [
        (_in_blocks(48), "all 48 terms left to right", "(0..47)"),
        (_backwards, "all 48 terms right to left", "(47..0:-1)"),
        (
            _in_blocks(16),
            "chains of 16 terms left to right, 3 of them one after another",
            "(0..15 (16..31) (32..47))",
        ),
        (
            _in_blocks(32),
            "chains of 32 terms left to right, then a rest of 16",
            "(0..31 (32..47))",
        ),
        (
            _in_lanes(4),
            "chains of 12 terms, 4 apart, 4 of them added up in pairs",
            "(0..44:4 (2..46:4) (1..45:4 (3..47:4)))",
        ),
    ],
)
@pytest.mark.parametrize("dtype", [FLOAT32, BF16, FP16])
def test_orders_are_said_in_words(
    linear: Linear, summary: str, text: str, dtype: torch.dtype
) -> None:
    tree = read_tree(linear, 48, dtype, 2, 16)
    assert tree.summary == summary
    assert tree.text == text


def test_a_long_chain_needs_no_deep_recursion() -> None:
    tree = read_tree(_backwards, 1200, FLOAT32, 1, 600)
    assert tree.text == "(1199..0:-1)"
    assert difference(tree, tree) == ""


def test_a_sum_of_many_at_once() -> None:
    def fused(x: Tensor, weight: Tensor) -> Tensor:
        """Four terms join the sum in one addition, as in a tensor core: none of them is rounded."""
        total = torch.zeros(len(x), len(weight))
        for part, other in zip(torch.split(x, 4, 1), torch.split(weight, 4, 1), strict=True):
            terms = torch.cat([part[:, None].double() * other[None].double(), total[..., None]], 2)
            big = terms.abs().amax(2, keepdim=True)
            kept = torch.where(terms.abs() * 2.0**40 < big, 0.0, terms)  # shifted out
            total = kept.sum(2).float()
        return total

    tree = read_tree(fused, 16, FLOAT32, 1, 16)
    assert isinstance(tree.root, Node)
    assert len(tree.root.children) == 5
    assert tree.summary == "sums of up to 5 terms at once"


def test_trees_part_where_they_differ() -> None:
    ours, theirs = (read_tree(_in_blocks(size), 48, FLOAT32, 2, 16) for size in (16, 48))
    assert difference(ours, theirs) == (
        "terms 0 and 16 meet in a sum of 32 terms, in the other order in one of 17"
    )
    assert ours.hash != theirs.hash
    assert ours.hash == Tree(ours.root).hash


def test_exact_sums_have_no_order_to_read() -> None:
    with pytest.raises(UnreadableTreeError, match="cannot be read"):
        read_tree(lambda x, w: torch.full((len(x), len(w)), 0.5), 48, FLOAT32, 2, 16)
