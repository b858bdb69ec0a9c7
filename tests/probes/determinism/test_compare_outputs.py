"""Byte comparison: every single bit is noticed, and nothing is compared after a differing token."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.determinism.report import compare_outputs
from driftscope_probes.engines.sessions.question import Output

LOGPROBS = st.lists(st.floats(-40, 0, width=32), min_size=1, max_size=12)


def output(tokens: list[int], logprobs: list[float]) -> Output:
    return Output.of(tokens, logprobs)


@given(LOGPROBS)
@settings(max_examples=50)
def test_an_output_equals_itself(logprobs: list[float]) -> None:
    one = output(list(range(len(logprobs))), logprobs)
    found = compare_outputs(one, Output.from_dict(one.to_dict()))
    assert found.equal
    assert (found.max_abs_diff, found.max_ulps) == (0.0, 0)
    assert found.first_token is None and found.first_logprob is None


@given(LOGPROBS, st.data())
@settings(max_examples=100)
def test_one_flipped_bit_is_found_where_it_is(logprobs: list[float], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(logprobs) - 1))
    bit = data.draw(st.integers(0, 22))
    one = output(list(range(len(logprobs))), logprobs)
    bits = one.logprobs.view(np.uint32).copy()
    bits[place] ^= np.uint32(1 << bit)
    found = compare_outputs(one, Output(one.token_ids, bits.view(np.float32)))
    assert not found.equal
    assert found.first_logprob == place and found.first_token is None
    assert found.equal_logprobs == len(logprobs) - 1
    assert found.max_ulps == 1 << bit


def test_after_a_differing_token_everything_differs() -> None:
    one = output([1, 2, 3, 4], [-1.0, -2.0, -3.0, -4.0])
    other = output([1, 9, 3, 4], [-1.0, -2.0, -3.0, -4.0])
    found = compare_outputs(one, other)
    assert (found.tokens, found.equal_tokens, found.equal_logprobs) == (4, 1, 1)
    assert (found.first_token, found.first_logprob) == (1, 1)
    assert found.max_abs_diff == 0.0


def test_nothing_comparable_gives_no_size() -> None:
    found = compare_outputs(output([1], [-1.0]), output([2], [-1.0]))
    assert found.max_abs_diff is None and found.max_ulps is None


def test_a_missing_token_differs() -> None:
    found = compare_outputs(output([1, 2], [-1.0, -2.0]), output([1], [-1.0]))
    assert (found.tokens, found.equal_tokens, found.first_token) == (2, 1, 1)


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_what_is_no_number_is_compared_by_its_bits(value: float) -> None:
    same = output([1, 2], [value, -1.0])
    assert compare_outputs(same, output([1, 2], [value, -1.0])).equal
    found = compare_outputs(same, output([1, 2], [-1.0, -1.0]))
    assert not found.equal and found.max_abs_diff == 0.0


def test_zeros_of_both_signs_differ_in_bits_alone() -> None:
    found = compare_outputs(output([1], [0.0]), output([1], [-0.0]))
    assert not found.equal and found.max_ulps == 0


def test_ulps_count_the_floats_between() -> None:
    low = np.float32(-1.0)
    steps = np.float32(low)
    for _ in range(5):
        steps = np.nextafter(steps, np.float32(0))
    assert compare_outputs(output([1], [float(low)]), output([1], [float(steps)])).max_ulps == 5
