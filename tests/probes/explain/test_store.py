"""Captured tensors on disk: what is written comes back, rows in any order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.explain.sites import Place
from driftscope_probes.explain.store import Store

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.int32)


@given(
    rows=st.integers(1, 12),
    width=st.integers(1, 5),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_rows_written_in_any_order_come_back(
    rows: int, width: int, dtype: torch.dtype, seed: int, data: st.DataObject
) -> None:
    torch.manual_seed(seed)
    values = (torch.randn(rows, width) * 100).to(dtype)
    order = torch.tensor(data.draw(st.permutations(range(rows))))
    cut = data.draw(st.integers(0, rows))
    place, other = Place(0, "q_proj"), Place(None, "final_norm")
    with Store(rows) as store:
        for part in (order[:cut], order[cut:]):
            store.write(place, part, values[part])
            store.write(other, part, values[part] * 0)
        assert torch.equal(store.read(place), values)
        assert torch.equal(store.read(other), values * 0)
        wanted = order.flip(0)
        assert torch.equal(store.read_rows(place, wanted), values[wanted])
        assert list(store.places) == [place, other]


def test_rows_that_were_not_written_are_zeros() -> None:
    with Store(4) as store:
        store.write(Place(0, "k_proj"), torch.tensor([2]), torch.ones(1, 3))
        assert store.read(Place(0, "k_proj")).sum(1).tolist() == [0.0, 0.0, 3.0, 0.0]


def test_a_place_keeps_its_shape_and_dtype() -> None:
    with Store(2) as store:
        store.write(Place(0, "k_proj"), torch.tensor([0]), torch.ones(1, 3))
        with pytest.raises(ValueError, match=r"0\.k_proj was \(3,\) torch\.float32"):
            store.write(Place(0, "k_proj"), torch.tensor([1]), torch.ones(1, 3).half())


def test_what_was_never_written_is_a_key_error() -> None:
    with Store(2) as store, pytest.raises(KeyError):
        store.read(Place(0, "k_proj"))


@given(asked=st.lists(st.integers(0, 8), max_size=12))
def test_any_rows_are_read_alone(asked: list[int]) -> None:
    values = torch.arange(9.0)[:, None] * (torch.arange(9) < 6)[:, None]
    with Store(9) as store:
        store.write(Place(0, "k_proj"), torch.arange(6), values[:6])
        found = store.read_rows(Place(0, "k_proj"), torch.tensor(asked, dtype=torch.int64))
        assert torch.equal(found, values[asked])
