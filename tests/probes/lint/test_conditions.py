"""Conditions at their edges: what is known, what is not, and what only looks alike."""

from __future__ import annotations

import pytest

from driftscope_probes.lint.base import Condition, Scalar, Setting, Settings
from driftscope_probes.lint.conditions import (
    Apart,
    Before,
    Between,
    Contains,
    Either,
    Known,
    MoreThan,
    OneOf,
    Other,
    Since,
    Unless,
    Unlike,
    Unsaid,
    Unset,
    equals,
)

A, B = "engine.version", "model.type"


def known(**values: Scalar) -> Settings:
    names = {"a": A, "b": B}
    return Settings(tuple(Setting(names[key], value, key) for key, value in values.items()))


@pytest.mark.parametrize(
    ("condition", "settings", "holds"),
    [
        (equals(A, 1), known(a=1), True),
        (equals(A, 1), known(a=1.0), True),
        (equals(A, 1), known(a=True), False),
        (equals(A, False), known(a=0), False),
        (OneOf(A, ("x", "y")), known(a="y"), True),
        (Other(A, ("x",)), known(a="y"), True),
        (Other(A, ("x",)), known(), False),
        (Between(A, low=0), known(a=0), False),
        (Between(A, low=0, high=1), known(a=0.5), True),
        (Between(A, low=0), known(a=True), False),
        (Between(A, low=0), known(a="5"), False),
        (Contains(A, ("l20",)), known(a="NVIDIA L20"), True),
        (Contains(A, ("l20",)), known(a=20), False),
        (Unlike(A, B), known(a="x", b="y"), True),
        (Unlike(A, B), known(a="x"), False),
        (Known(A), known(a=False), True),
        (Unset(A), known(b="x"), False),
        (Unset(A), Settings((Setting("engine.dtype", "bf16", ""),)), True),
        (Unsaid(A), known(b="x"), True),
        (Unsaid(A), known(a="x"), False),
        (Unless(Known(A)), known(), True),
        (Unless(Known(A)), known(a=0), False),
        (Either((Known(A), Known(B))), known(b=1), True),
        (MoreThan(A, B), known(a=2, b=1), True),
        (MoreThan(A, B), known(a=1, b=1), False),
        (MoreThan(A, B), known(a=2), False),
        (MoreThan(A, B), known(a="2", b=1), False),
        (Apart(A, B), known(a="1,2", b="3"), True),
        (Apart(A, B), known(a="1,2", b="2,3"), False),
        (Apart(A, B), known(a="1"), False),
        (Before(A, (0, 18)), known(a="0.9.1"), True),
        (Before(A, (0, 18)), known(a="v0.18.0rc1"), False),
        (Before(A, (5,)), known(a="4.57.1"), True),
        (Before(A, (5,)), known(a="5.0.0.dev0"), False),
        (Before(A, (5,)), known(a="nightly"), False),
        (Before(A, (5,)), known(), False),
        (Since(A, (0, 29)), known(a="0.32.0+cpu"), True),
        (Since(A, (0, 29)), known(a="0.28.1"), False),
        (Since(A, (0, 29)), known(a="latest"), False),
    ],
    ids=str,
)
def test_a_condition(condition: Condition, settings: Settings, holds: bool) -> None:
    assert (condition(settings) is not None) == holds


def test_what_two_settings_hold_is_named_with_the_first_ones_place() -> None:
    met = Unlike(A, B)(known(a="x", b="y"))
    assert met == Setting(A, "x beside y", "a")
    assert Either((Known(B), Known(A)))(known(a="x")) == Setting(A, "x", "a")
