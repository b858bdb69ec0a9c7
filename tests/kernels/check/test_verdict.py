"""A counterexample's JSON says enough to make its two calls again; nonsense is refused."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
import torch

from driftscope_kernels.check.cases.case import Shape, Subject
from driftscope_kernels.check.placements.placement import Placement
from driftscope_kernels.check.search import Mismatch, Trial
from driftscope_kernels.check.verdict import (
    ReplaySpecError,
    read_replay_spec,
    replay_command,
    replay_spec,
)
from driftscope_kernels.compare_bits import Difference

SUBJECT = Subject("torch", "linear", "eager", torch.bfloat16, 2)
TRIAL = Trial(Shape(5, 3), torch.bfloat16, "cancelling", 1, 9)
FOUND = Mismatch(
    *("layout", TRIAL, Placement(9), Placement(9, layout="offset_1"), 3),
    Difference(3, 0, 1.0, 2.0, "0x3f80", "0x4000", 128, 1, 3),
    *(1, 9),
)


def test_the_command_holds_what_is_read_back() -> None:
    words = shlex.split(replay_command(SUBJECT, FOUND))
    assert words[:4] == ["driftscope", "kernels", "check", "--replay"]
    read = read_replay_spec(json.loads(words[4]))
    assert read == (SUBJECT, "layout", TRIAL, FOUND.left, FOUND.right)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "fp8"},
        {"k": 0},
        {"n": "3"},
        {"rows": 10**6},
        {"rows": 2},
        {"threads": True},
        {"inputs": "pickle"},
        {"left": {}},
        {"left": 3},
        {"right": {"count": 3, "layout": "spiral"}},
    ],
)
def test_nonsense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ReplaySpecError):
        read_replay_spec({**replay_spec(SUBJECT, FOUND), **change})


@pytest.mark.parametrize("name", ["target", "dtype", "k", "left", "seed"])
def test_a_missing_part_is_named(name: str) -> None:
    spec = replay_spec(SUBJECT, FOUND)
    del spec[name]
    with pytest.raises(ReplaySpecError, match=name):
        read_replay_spec(spec)
