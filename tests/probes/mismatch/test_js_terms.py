from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.mismatch.js_terms import HYPERBOLIC_UP_TO, js_terms


def log_cosh(diff: float) -> float:
    with localcontext(prec=80):
        half = Decimal(diff) / 2
        return float(((half.exp() + (-half).exp()) / 2).ln())


@given(
    st.one_of(
        st.floats(-1500, 1500),
        st.floats(-1e-3, 1e-3),
        st.sampled_from([HYPERBOLIC_UP_TO, float(np.nextafter(HYPERBOLIC_UP_TO, 2)), 1e-12]),
    ).filter(lambda diff: diff == 0 or abs(diff) > 1e-15)
)
def test_equal_to_eighty_digits(diff: float) -> None:
    (found,) = js_terms(np.array([diff]))
    assert found == pytest.approx(log_cosh(diff), rel=1e-14)
    assert found == js_terms(np.array([-diff]))[0]


def test_zero_is_exact() -> None:
    assert js_terms(np.array([0.0, -0.0])).tolist() == [0.0, 0.0]
