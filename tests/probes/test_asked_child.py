"""A child that is asked: its answers, its refusals, and its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driftscope_probes.asked_child import AskedChild
from driftscope_probes.children import Crash
from driftscope_probes.errors import Cancelled, EngineError, TrainerError

PATH = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "children"), *sys.path])}

Start = Callable[[str], AskedChild]


def explain(crash: Crash) -> TrainerError:
    return TrainerError(f"it ended with {crash.last_line}", remedy="none")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[AskedChild] = []

    def start_one(do: str) -> AskedChild:
        child = AskedChild("step", {"do": do}, tmp_path, explain_crash=explain, environment=PATH)
        started.append(child)
        return child

    yield start_one
    for child in started:
        child.close()


def test_a_refusal_is_raised_and_the_next_question_is_answered(start: Start) -> None:
    child = start("serve")
    with pytest.raises(EngineError, match="not that"):
        child.ask({"text": "refuse"})
    assert child.ask({"text": "abc"}) == {"text": "cba"}
    assert child.alive


def test_every_question_after_a_crash_hears_why(start: Start) -> None:
    child = start("crash")
    for _ in range(2):
        with pytest.raises(TrainerError, match="by accident"):
            child.ask({"text": "abc"})
    assert not child.alive


def test_a_closed_child_answers_nothing(start: Start) -> None:
    child = start("serve")
    child.close()
    assert not child.alive
    with pytest.raises(Cancelled):
        child.ask({"text": "abc"})
