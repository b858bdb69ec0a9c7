"""Columns of other lengths: which sequence, by how much, how many; the same words in the client."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_client.lengths import lengths_fault as told_by_the_client
from driftscope_client.snapshot import NAMES_ELSEWHERE as theirs
from driftscope_probes.push.lengths import lengths_fault
from driftscope_probes.push.rules import NAMES_ELSEWHERE

LENGTHS = st.lists(st.integers(0, 5), max_size=6)


@given(LENGTHS, LENGTHS)
def test_the_client_says_the_same(own: list[int], expected: list[int]) -> None:
    fault = lengths_fault("mask", own, "rollout_logprobs", expected)
    other = told_by_the_client("mask", own, "rollout_logprobs", expected)
    assert (fault is None) == (other is None) == (own == expected)
    if fault is not None and other is not None:
        assert (fault.message, fault.remedy) == (other.message, other.remedy)


def test_the_client_knows_the_same_names() -> None:
    assert theirs == NAMES_ELSEWHERE


@pytest.mark.parametrize(
    ("own", "expected", "told"),
    [
        (
            [3, 4],
            [4, 5],
            "2 of 2 sequences differ: every sequence has one more on the rollout side.",
        ),
        ([5, 4], [3, 4], "1 of 2 sequences differs: each has 2 more on the trainer side."),
        ([3, 3, 9], [4, 1, 9], "2 of 3 sequences differ, by -1 to +2."),
        ([3], [3, 3], "has 1 sequences, rollout_logprobs has 2"),
    ],
)
def test_the_common_offset_is_named(own: list[int], expected: list[int], told: str) -> None:
    fault = lengths_fault("trainer_logprobs", own, "rollout_logprobs", expected)
    assert fault is not None and told in fault.message
