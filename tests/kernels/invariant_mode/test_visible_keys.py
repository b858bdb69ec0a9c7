"""Masks as sequences, against a reading of the mask query by query."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from driftscope_kernels.invariant_mode.attention import Runs, causal_runs, masked_runs


def described(runs: Runs, batch: int, queries: int, keys: int) -> Tensor:
    """The mask that the runs stand for; rows of queries in none of them stay empty."""
    mask = torch.zeros(batch * queries, batch * keys, dtype=torch.bool)
    key_end = 0
    for index, length in enumerate(runs.seqlens_k.tolist()):
        start, stop = runs.cu_seqlens_q[index : index + 2].tolist()
        own = runs.keys[key_end : key_end + length]
        key_end += length
        for place, query in enumerate(runs.queries[start:stop].tolist()):
            mask[query, own[: length - (stop - start) + place + 1]] = True
    return mask


def in_blocks(visible: Tensor) -> Tensor:
    """[batch · queries, batch · keys] of [batch, queries, keys]."""
    blocks: Tensor = torch.block_diag(*visible.int())  # type: ignore[no-untyped-call]
    return blocks.bool()


@st.composite
def masks(draw: st.DrawFn) -> Tensor:
    """Causal within segments, some of them padding, some single entries turned over."""
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    visible = torch.zeros(batch, length, length, dtype=torch.bool)
    for b in range(batch):
        labels = draw(st.lists(st.integers(0, 2), min_size=length, max_size=length))
        kinds = torch.tensor(sorted(labels))
        same = (kinds[:, None] == kinds) & (kinds > 0)
        visible[b] = same & torch.ones(length, length, dtype=torch.bool).tril()
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
    left = lower.clone()[None]
    left[:, :, :2] = False
    assert masked_runs(left).keys.tolist() == [2, 3, 4]
    assert masked_runs(left).others.tolist() == [[0, 0], [0, 1]]


def test_no_mask_is_a_causal_sequence_each() -> None:
    runs, lower = causal_runs(2, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool).tril()
    assert torch.equal(described(runs, 2, 4, 4), in_blocks(lower))
    assert runs.cu_seqlens_q.tolist() == [0, 4, 8] and not len(runs.others)
