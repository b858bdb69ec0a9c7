"""Every control can be run by hand, and an option that is installed here exists."""

from __future__ import annotations

import dataclasses
import re

import pytest
from trl import GRPOConfig
from trl.scripts.vllm_serve import ScriptArguments

from driftscope_probes.diagnosis.by_hand.base import FRAMEWORKS
from driftscope_probes.diagnosis.by_hand.registry import BY_HAND, instructions
from driftscope_probes.diagnosis.controls.registry import CONTROLS


def test_every_control_can_be_run_by_hand() -> None:
    assert {control.name for control in CONTROLS} <= BY_HAND.keys()


@pytest.mark.parametrize("name", BY_HAND)
def test_it_says_how_to_read_it(name: str) -> None:
    """One way only: the general words, or its own."""
    entry = BY_HAND[name]
    for text in (entry.otherwise, *entry.options.values()):
        own = "dirty if" in text or "clean if" in text
        assert not own or entry.look == "said", text
    assert entry.look != "said" or "y if" in entry.otherwise or "n if" in entry.otherwise


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_framework_has_an_answer_to_every_control(framework: str) -> None:
    for name in BY_HAND:
        (said,) = instructions(name, framework).items()  # type: ignore[arg-type]
        assert said[0] == framework and said[1]
    assert any(framework in BY_HAND[name].options for name in BY_HAND)


def test_options_of_trl_are_those_of_the_installed_one() -> None:
    fields = {one.name for one in dataclasses.fields(GRPOConfig)}
    serve = {one.name for one in dataclasses.fields(ScriptArguments)}
    for entry in BY_HAND.values():
        text = entry.options.get("trl", "")
        for inside in re.findall(r"GRPOConfig\((.*)\)", text.split(" and ")[0]):
            assert set(re.findall(r"(?<![\"\w])(\w+)=", inside)) <= fields, text
        if "trl vllm-serve" in text:
            assert set(re.findall(r"--(\w+)", text)) <= serve, text


def test_options_of_vllm_are_those_of_the_installed_one() -> None:
    vllm = pytest.importorskip("vllm.engine.arg_utils")
    known = {one.name for one in dataclasses.fields(vllm.AsyncEngineArgs)}
    for entry in BY_HAND.values():
        for word in re.findall(r"--([a-z-]+)", entry.options.get("vllm", "")):
            name = word.removeprefix("no-").replace("-", "_")
            assert name in known or name == "lora_modules", word  # of the server's own parser
