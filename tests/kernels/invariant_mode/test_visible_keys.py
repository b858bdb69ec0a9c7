"""Masks as sequences, against a reading of the mask query by query."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from driftscope_kernels import ops
from driftscope_kernels.invariant_mode import invariant_mode
from driftscope_kernels.invariant_mode.attention import Runs, causal_runs, masked_runs
from driftscope_kernels.options import TRANSFORMERS_ATTENTION


def described(runs: Runs, batch: int, queries: int, keys: int) -> Tensor:
    """The mask that the runs stand for; rows of queries in none of them stay empty."""
    mask = torch.zeros(batch * queries, batch * keys, dtype=torch.bool)
    key_end = 0
    for index, length in enumerate(runs.seqlens_k.tolist()):
        start, stop = runs.cu_seqlens_q[index : index + 2].tolist()
        own = runs.keys[key_end : key_end + length]
        key_end += length
        for place, query in enumerate(runs.queries[start:stop].tolist()):
            last = length - (stop - start) + place + 1
            mask[query, own[0 if runs.window is None else max(0, last - runs.window) : last]] = True
    return mask


def in_blocks(visible: Tensor) -> Tensor:
    """[batch · queries, batch · keys] of [batch, queries, keys]."""
    blocks: Tensor = torch.block_diag(*visible.int())  # type: ignore[no-untyped-call]
    return blocks.bool()


@st.composite
def masks(draw: st.DrawFn) -> Tensor:
    """Causal within segments, some of them padding, with or without a window; some single entries

    turned over.
    """
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    visible = torch.zeros(batch, length, length, dtype=torch.bool)
    for b in range(batch):
        labels = draw(st.lists(st.integers(0, 2), min_size=length, max_size=length))
        kinds = torch.tensor(sorted(labels))
        same = (kinds[:, None] == kinds) & (kinds > 0)
        visible[b] = same & torch.ones(length, length, dtype=torch.bool).tril()
    window = draw(st.integers(1, 2 * length))
    visible &= torch.ones(length, length, dtype=torch.bool).triu(1 - window)
    place = st.tuples(
        st.integers(0, batch - 1), st.integers(0, length - 1), st.integers(0, length - 1)
    )
    for where in draw(st.lists(place, max_size=2)):
        visible[where] = ~visible[where]
    # Only the last queries, as in a step of decoding.
    return visible[:, draw(st.integers(0, length - 1)) :]


@settings(max_examples=150, deadline=None)
@given(masks())
def test_runs_describe_the_mask_and_leave_the_rest(visible: Tensor) -> None:
    batch, queries, keys = visible.shape
    runs = masked_runs(visible)
    mask = in_blocks(visible)
    others = runs.others[:, 0] * queries + runs.others[:, 1]
    assert sorted([*runs.queries.tolist(), *others.tolist()]) == list(range(batch * queries))
    assert torch.equal(described(runs, batch, queries, keys)[runs.queries], mask[runs.queries])
    own = torch.arange(queries) + keys - queries
    for b, query in runs.others.tolist():
        row = visible[b, query]
        seen = row.nonzero().flatten().tolist()
        assert not seen or seen != list(range(seen[0], int(own[query]) + 1))


def test_packed_padded_and_alone_are_single_sequences() -> None:
    lower = torch.ones(5, 5, dtype=torch.bool).tril()
    packed = masked_runs(in_blocks(torch.stack([lower, lower]))[None])
    assert packed.seqlens_k.tolist() == [5, 5] and not len(packed.others)
    windowed = masked_runs((in_blocks(torch.stack([lower, lower])) & band(10, 3))[None])
    assert (windowed.seqlens_k.tolist(), windowed.window) == ([5, 5], 3)
    left = lower.clone()[None]
    left[:, :, :2] = False
    assert masked_runs(left).keys.tolist() == [2, 3, 4]
    assert masked_runs(left).others.tolist() == [[0, 0], [0, 1]]


def band(length: int, window: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool).triu(1 - window)


def test_a_window_is_not_taken_for_one_where_another_query_sees_more() -> None:
    lower = torch.ones(6, 6, dtype=torch.bool).tril()
    mixed = masked_runs(torch.stack([lower & band(6, 2), lower]))
    assert mixed.window is None
    assert torch.equal(
        described(mixed, 2, 6, 6), in_blocks(torch.stack([lower & band(6, 2), lower]))
    )


def test_no_mask_is_a_causal_sequence_each() -> None:
    runs, lower = causal_runs(2, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool).tril()
    assert torch.equal(described(runs, 2, 4, 4), in_blocks(lower))
    assert runs.cu_seqlens_q.tolist() == [0, 4, 8] and not len(runs.others)


def test_a_windowed_mask_has_the_bits_of_the_kernel_that_an_engine_gives_its_window() -> None:
    """Longer than a tile of keys: from which key on is added up is in the bits."""
    torch.manual_seed(0)
    length, window = 150, 48
    q, k, v = (torch.randn(1, 2, length, 32).bfloat16() for _ in range(3))
    mask = torch.ones(length, length, dtype=torch.bool).tril() & band(length, window)
    with invariant_mode():
        found = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask[None, None])
    rows = [x[0].transpose(0, 1) for x in (q, k, v)]
    expected = ops.attention(
        *rows,
        cu_seqlens_q=torch.tensor([0, length], dtype=torch.int32),
        seqlens_k=torch.tensor([length], dtype=torch.int32),
        window=window,
        options=TRANSFORMERS_ATTENTION,
    )
    assert torch.equal(found[0].transpose(0, 1), expected)
