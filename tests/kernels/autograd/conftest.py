"""Every test of the gradients runs with every implementation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from driftscope_kernels.registry import PREFERENCE, using


@pytest.fixture(autouse=True, params=PREFERENCE)
def _implementation(request: pytest.FixtureRequest) -> Iterator[None]:
    with using(request.param):
        yield
