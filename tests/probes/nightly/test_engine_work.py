"""Axis results → findings; and a night of a real engine whose setting is altered."""

from __future__ import annotations

import inspect
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from driftscope_probes.determinism.request import DeterminismRequest
from driftscope_probes.nightly.item import EngineItem
from driftscope_probes.nightly.request import parse_config
from driftscope_probes.nightly.run import run_nightly
from driftscope_probes.nightly.work import command_of, engine_finding, engine_work, request_of
from driftscope_probes.progress import discard
from driftscope_service.experiments.determinism import command as probe_determinism


def item(axis: str = "batch_size", **settings: Any) -> EngineItem:
    return EngineItem("tiny-random-llama", "vllm", "stock", "bf16", axis, None, settings, "equal")


def line(verdict: str, **fields: Any) -> dict[str, Any]:
    measured: dict[str, Any] = {
        "bitwise_equal_tokens": 1.0,
        "bitwise_equal_logprobs": 0.5,
        "unique_outputs": 2,
        "outputs": 8,
        "tokens": 64,
        "max_abs_diff": 0.25,
        "max_ulps": 3,
        "first_differing_token": None,
        "onset": None,
        "bits": "c0ffee",
        "reason": None,
        "replay": "driftscope probe determinism …",
        "cells": [],
    }
    return {"axis": {"verdict": verdict, **measured, **fields}, "seconds": 4.0}


def test_a_request_is_of_one_axis_and_has_the_settings_of_its_table() -> None:
    request = request_of(item(threads=2, batch_sizes=[1, 4]))
    assert request.axes == ["batch_size"]
    assert (request.threads, request.batch_sizes, request.kernels) == (2, [1, 4], "stock")


def test_the_command_says_all_that_the_request_says() -> None:
    one = item(threads=2, attention_split_kv=False, batch_sizes=[1, 4], bisect=True)
    words = shlex.split(command_of(one))
    assert words[:3] == ["driftscope", "probe", "determinism"]
    assert "--no-attention-split-kv" in words and "--bisect" in words
    assert words[words.index("--batch-sizes") + 1] == "1,4"
    # Every setting is an option of the command.
    options = set(inspect.signature(probe_determinism.determinism).parameters)
    assert set(DeterminismRequest.model_fields) <= options


def test_items_of_one_model_share_a_process() -> None:
    items = [item(), item("position", threads=2)]
    assert items[0].process == items[1].process
    work = engine_work(items)
    assert [unit.spec["axes"] for unit in work.units] == [["batch_size"], ["position"]]


def test_each_server_is_asked_in_a_process_of_its_own() -> None:
    """A process asks one server: the items of another would be answered by it."""
    here, there = (
        replace(item(server_url=f"http://{name}:8000"), engine="vllm-server") for name in "ab"
    )
    assert here.process != there.process
    assert request_of(here).server_url == "http://a:8000"
    with pytest.raises(ValueError, match="needs server_url"):
        request_of(replace(here, settings={}))


def test_a_finding_says_how_much_differs_and_from_where_on() -> None:
    onset = {"setting": "batch size", "equal_up_to": 3, "differs_from": 4, "tested": [1, 4]}
    found = engine_finding(item(), line("differs", onset=onset))
    assert found.verdict == "differs"
    assert found.detail["reason"] == (
        "50.0% of 64 tokens bitwise equal; batch size: 3 equal, 4 differs"
    )
    assert (found.detail["unique_outputs"], found.detail["bits"]) == (2, "c0ffee")
    assert found.replay


def test_what_was_not_run_says_why() -> None:
    absent = dict.fromkeys(("bitwise_equal_logprobs", "tokens", "replay"))
    found = engine_finding(item(), line("not_run", reason="no scheduler", **absent))
    assert (found.verdict, found.detail["reason"]) == ("not_run", "no scheduler")
    found = engine_finding(item(), {"missing": "the engine failed", "seconds": 1.0})
    assert (found.verdict, found.detail["reason"]) == ("not_run", "the engine failed")


CONFIG = """
name = "engine"
budget_minutes = 10
[[engines]]
models = ["tiny-random-llama"]
engines = ["vllm"]
kernels = ["stock"]
dtypes = ["fp32"]
axes = ["batch_size"]
settings = { threads = 2, attention_split_kv = false, batch_sizes = [2, 4], bisect = false }
expected = "equal"
"""


@pytest.mark.slow
def test_a_setting_that_alters_the_reduction_gives_1_and_is_named(
    tmp_path: Path, tiny_llama: Path
) -> None:
    """Keys split over threads: how many pieces depends on the batch."""
    whole = run_nightly(parse_config(CONFIG.encode()), tmp_path, discard)
    assert whole.exit_code == 0, whole.alarms
    split = CONFIG.replace("attention_split_kv = false", "attention_split_kv = true")
    result = run_nightly(parse_config(split.encode()), tmp_path, discard)
    assert result.exit_code == 1
    (alarm,) = result.alarms
    name = "engine/tiny-random-llama/vllm/stock/fp32/batch_size"
    assert alarm == f"{name}: differs, expected equal; equal before, so it is worse now"
    named = {change.name: (change.before, change.after) for change in result.changed_environment}
    assert named[f"{name}: attention_split_kv"] == (False, True)
    assert "--attention-split-kv" in str(result.items[0].replay)
