"""Captured tensors on disk: rows come back as they were written, and only those asked for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.explain.sites import Place
from driftscope_probes.explain.store import Store

ROWS = 9
PLACE = Place(0, "q_proj")


@given(
    written=st.sets(st.integers(0, ROWS - 1), min_size=1),
    asked=st.lists(st.integers(0, ROWS - 1), max_size=12),
    dtype=st.sampled_from([torch.bfloat16, torch.float32, torch.int64]),
)
def test_rows_come_back(written: set[int], asked: list[int], dtype: torch.dtype) -> None:
    rows = torch.tensor(sorted(written))
    whole = torch.zeros(ROWS, 3, dtype=dtype)
    whole[rows] = torch.arange(1, 3 * len(rows) + 1).reshape(-1, 3).to(dtype)
    with Store(ROWS) as store:
        store.write(PLACE, rows, whole[rows])
        assert torch.equal(store.read(PLACE), whole)
        found = store.read_rows(PLACE, torch.tensor(asked, dtype=torch.int64))
        assert found.dtype == dtype
        assert torch.equal(found, whole[asked])


def test_a_place_keeps_its_dtype() -> None:
    with Store(ROWS) as store:
        store.write(PLACE, torch.tensor([0]), torch.zeros(1, 3))
        with pytest.raises(ValueError, match="before"):
            store.write(PLACE, torch.tensor([1]), torch.zeros(1, 4))
