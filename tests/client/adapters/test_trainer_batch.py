"""Padded rows, wherever the padding is, become whole sequences; settings are read from any form."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from driftscope_client.adapters.trainer_batch import joined, present, rows, setting, settings, spans
from driftscope_client.errors import MalformedStep

MASKS = st.integers(1, 6).flatmap(
    lambda longest: st.lists(
        st.lists(st.integers(0, 1), min_size=longest, max_size=longest), min_size=1, max_size=5
    )
)


@given(MASKS)
def test_rows_are_cut_to_what_counts_and_empty_ones_left_out(masks: list[list[int]]) -> None:
    mask = torch.tensor(masks)
    column = torch.arange(mask.numel()).reshape(mask.shape)
    found = rows({"token_ids": column}, mask)
    held = [row for row in masks if any(row)]
    assert len(found["token_ids"]) == len(found["mask"]) == len(held)
    assert sum(span is None for span in spans(mask)) == len(masks) - len(held)
    kept = [one[counts] for one, counts in zip(found["token_ids"], found["mask"], strict=True)]
    expected = column[mask != 0].tolist()
    assert [value for one in kept for value in one.tolist()] == expected
    assert all(bool(counts[0]) and bool(counts[-1]) for counts in found["mask"])


def test_batches_are_joined_by_the_columns_that_all_have() -> None:
    parts = [{"mask": [1], "advantages": [2]}, {"mask": [3]}]
    assert joined(parts) == {"mask": [1, 3]}
    with pytest.raises(MalformedStep, match="empty"):
        joined([])


def test_settings_come_from_mappings_and_objects() -> None:
    config = {"actor": SimpleNamespace(dtype="bf16", path=None)}
    assert setting(config, "actor", "dtype") == "bf16"
    paths = {"trainer_dtype": ("actor", "dtype"), "model": ("actor", "path"), "engine": ("no",)}
    assert settings(config, paths) == {"trainer_dtype": "bf16"}
    assert settings(None, paths) == {}


@pytest.mark.parametrize("batch", [{"a": 1, "b": None}, SimpleNamespace(a=1, b=None)])
def test_what_is_absent_is_told_with_what_is_there(batch: object) -> None:
    present(batch, ["a"], {})
    with pytest.raises(MalformedStep, match="no b; it has a") as raised:
        present(batch, ["a", "b"], {"b": "set the option."})
    assert raised.value.remedy == "set the option."
