import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.push.json_step import float_column, integer_column, mask_column
from driftscope_probes.push.rules import PushError


@given(st.lists(st.floats(width=32) | st.none()))
def test_float32_values_arrive_as_they_are(values: list[float | None]) -> None:
    sent = np.array([math.nan if v is None else v for v in values], np.float32)
    received = float_column("x", values)
    np.testing.assert_array_equal(received, sent)
    np.testing.assert_array_equal(np.signbit(received), np.signbit(sent))


@given(st.floats(width=32, allow_nan=False))
def test_a_short_decimal_is_the_float32_it_came_from(value: float) -> None:
    short = np.format_float_positional(np.float32(value), unique=True)
    assert float_column("x", [float(short)])[0] == np.float32(value)


@pytest.mark.parametrize("value", [1e39, -1e300, 1e-60, -1e-46])
def test_what_float32_cannot_hold_is_refused(value: float) -> None:
    with pytest.raises(PushError, match="at 1 is outside the range of float32"):
        float_column("x", [-0.5, value])


@pytest.mark.parametrize("value", [True, "1", [], {}, 10**400])
def test_no_float(value: object) -> None:
    with pytest.raises(PushError, match="x cannot be read"):
        float_column("x", [value])


@pytest.mark.parametrize("value", [True, 1.0, None, "1", 2**31, -(2**31) - 1, 2**63, 10**400])
def test_no_int32(value: object) -> None:
    with pytest.raises(PushError, match="x cannot be read"):
        integer_column("x", [0, value], np.int32)


def test_integers() -> None:
    wide = [0, 2**63 - 1, -(2**63)]
    assert integer_column("x", wide, np.int64).tolist() == wide
    assert integer_column("x", [], np.int32).dtype == np.int32


def test_masks() -> None:
    assert mask_column("x", [True, 0, 1, False]).tolist() == [True, False, True, False]
    for value in (2, -1, 0.5, None, "1"):
        with pytest.raises(PushError, match="x cannot be read"):
            mask_column("x", [value])


@pytest.mark.parametrize("values", [None, 3, "12", {"0": 1}])
def test_no_list(values: object) -> None:
    with pytest.raises(PushError, match="not a list"):
        float_column("x", values)
