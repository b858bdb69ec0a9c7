"""Planned cases, their files, and the settings that they cover."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from driftscope_probes.diagnosis.drill import dump
from driftscope_probes.diagnosis.drill.case import Injection, Setting
from driftscope_probes.diagnosis.drill.faults import routing, shares
from driftscope_probes.diagnosis.drill.settings import MOST_FP16_TOKENS, SETTINGS
from driftscope_probes.dtypes import DTYPES
from driftscope_probes.push.step_file import read_step

SMALL = Setting("small", "tiny-llama", "fp32", "fp32", sequences=6, max_tokens=8, seed=3)


def test_settings_cover_sizes_dtypes_and_two_families() -> None:
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)
    assert {setting.rollout_dtype for setting in SETTINGS} == set(DTYPES)
    assert {setting.model for setting in SETTINGS} == {
        "smollm2-135m",
        "tiny-llama",
        "tiny-qwen",
        "tiny-moe",
    }
    assert min(setting.sequences for setting in SETTINGS) == 8
    assert max(setting.sequences for setting in SETTINGS) == 512
    assert min(setting.max_tokens for setting in SETTINGS) == 16
    assert max(setting.max_tokens for setting in SETTINGS) == 2048
    assert all(
        setting.sequences * setting.max_tokens <= MOST_FP16_TOKENS
        for setting in SETTINGS
        if setting.rollout_dtype == "fp16"
    )


def test_severities_of_one_injection_spread_over_the_whole_scale() -> None:
    injection = shares.INJECTIONS[0]
    severities = sorted(item.severity for item in dump.plan([injection], SETTINGS))
    assert len(severities) == len(SETTINGS)
    assert max(np.diff([0.0, *severities, 1.0])) < 0.15


def test_an_injection_is_planned_where_its_model_is() -> None:
    planned = list(dump.plan(routing.INJECTIONS, SETTINGS))
    assert planned and {item.setting.model for item in planned} == {"tiny-moe"}


def test_a_case_is_read_back_as_it_was_made(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump, "policy_folder", lambda name: tiny_llama)
    injection = next(one for one in shares.INJECTIONS if one.cause == "rank_local_corruption")
    planned = dump.Planned(injection, SMALL, 0.5, 7)
    dump.dump([planned], tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.name == "rank_local_corruption__a__0.50__small__7.safetensors"
    made, read = planned.inject().step, read_step(path)
    assert set(made.tensors()) == set(read.tensors())
    for name, tensor in made.tensors().items():
        assert np.array_equal(tensor, read.tensors()[name]), name
    assert dict(read.metadata) == {**made.metadata, "schema_version": "1"}


def test_a_file_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    def never(*_: object) -> object:
        raise AssertionError("made again")

    planned = dump.Planned(Injection(None, "a", "nothing", never), SMALL, 0.0, 0)  # type: ignore[arg-type]
    (tmp_path / planned.file_name).write_bytes(b"")
    dump.dump([planned], tmp_path)
    assert planned.file_name.startswith("healthy__a__0.00__small__0")
