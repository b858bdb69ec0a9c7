from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import pytest

from driftscope_probes.mismatch.fused import compiled


def twice(value: float) -> float:
    return 2.0 * value


def test_nowhere_to_keep_the_code_is_a_warning_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real: Callable[..., Any] = numba.njit

    def without_cache(**options: Any) -> Callable[..., Any]:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        decorator: Callable[..., Any] = real(**options)
        return decorator

    monkeypatch.setattr(compiled, "njit", without_cache)
    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR"):
        compiled_twice = compiled.kept_on_disk(twice)
    assert compiled_twice(1.5) == 3.0
