from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from driftscope_probes.errors import TraceError
from driftscope_probes.tokens import checked_tokens

GOOD: dict[str, Any] = {
    "rollout": np.zeros(4, dtype=np.float32),
    "trainer": np.zeros(4, dtype=np.float64),
    "cu_seqlens": np.array([0, 1, 4], dtype=np.int32),
    "mask": np.array([1, 0, 1, 1], dtype=np.uint8),
}


def test_good_input_keeps_its_dtypes() -> None:
    pair = checked_tokens(**GOOD)
    assert pair.rollout.dtype == np.float32 and pair.trainer.dtype == np.float64
    assert pair.cu_seqlens.dtype == np.int64
    assert pair.mask is not None and pair.mask.tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("rollout", np.zeros(4, dtype=np.float16), "float16"),
        ("rollout", np.zeros(4, dtype=np.int64), "int64"),
        ("rollout", np.zeros(4, dtype=">f4"), ">f4"),
        ("rollout", np.zeros((2, 2)), "shape (2, 2)"),
        ("rollout", [[0.0], [0.0, 1.0]], "not an array"),
        ("rollout", None, "object"),
        ("trainer", np.zeros(3), "3"),
        ("trainer", np.float64(0.0), "shape ()"),
        ("cu_seqlens", np.array([0, 5]), "does not rise"),
        ("cu_seqlens", np.array([1, 4]), "does not rise"),
        ("cu_seqlens", np.array([0, 3, 2, 4], dtype=np.uint32), "does not rise"),
        ("cu_seqlens", np.array([0, 2**64 - 1, 4], dtype=np.uint64), "does not rise"),
        ("cu_seqlens", np.array([0.0, 4.0]), "float64"),
        ("cu_seqlens", np.array([True, False]), "bool"),
        ("cu_seqlens", np.array([[0, 4]]), "shape (1, 2)"),
        ("cu_seqlens", np.array([0]), "shape (1,)"),
        ("mask", np.ones(3, dtype=bool), "shape (3,)"),
        ("mask", np.ones((4, 1), dtype=bool), "shape (4, 1)"),
        ("mask", np.array([0, 1, 2, 1]), "other than 0 and 1"),
        ("mask", np.ones(4), "float64"),
    ],
)
def test_bad_input_names_what_was_given_and_the_remedy(field: str, value: Any, words: str) -> None:
    with pytest.raises(TraceError) as raised:
        checked_tokens(**(GOOD | {field: value}))
    assert words in raised.value.message
    assert raised.value.remedy
