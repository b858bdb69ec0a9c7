from __future__ import annotations

import pytest

from driftscope_probes.plural import counted, noun


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 steps"), (1, "1 step"), (2, "2 steps"), (12_000, "12,000 steps")]
)
def test_one_is_singular_and_nothing_else(count: int, said: str) -> None:
    assert counted(count, "step") == said


def test_a_plural_of_its_own() -> None:
    assert [counted(n, "axis", "axes") for n in (1, 2)] == ["1 axis", "2 axes"]
    assert [noun(n, "binary", "binaries") for n in (1, 0)] == ["binary", "binaries"]
