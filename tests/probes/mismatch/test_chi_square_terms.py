from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.terms import CHI_SQUARE_BOUND, chi_square_terms


def test_the_clamp_holds_on_both_sides() -> None:
    terms = chi_square_terms(np.array([0.0, CHI_SQUARE_BOUND, 1e300, -CHI_SQUARE_BOUND, -1e300]))
    assert terms[0] == 0.0
    assert terms[1] == terms[2] == np.expm1(40.0)
    assert terms[3] == terms[4] == np.expm1(-40.0)
