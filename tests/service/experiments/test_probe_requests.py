"""Requests of clients → what the process of a probe gets: bounded by the operator's settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from driftscope_service.experiments.determinism import job as determinism
from driftscope_service.experiments.kernels import job as kernels
from driftscope_service.experiments.nightly import job as nightly
from driftscope_service.experiments.paired import job as paired
from driftscope_service.http.errors import InvalidField

Prepare = Callable[[dict[str, Any], Any], dict[str, Any]]
MODEL = {"model": "tiny-random-llama"}
SERVER = {"url": "http://127.0.0.1:9000", "model": "served"}


def prepare_determinism(fields: dict[str, Any], settings: Any) -> dict[str, Any]:
    asked = determinism.DeterminismProbeRequest(**{**MODEL, "max_tokens": 1, **fields})
    return determinism.probe_request(asked, settings)


def prepare_kernels(fields: dict[str, Any], settings: Any) -> dict[str, Any]:
    return kernels.probe_request(kernels.KernelsProbeRequest(**fields), settings)


def prepare_paired(fields: dict[str, Any], settings: Any) -> dict[str, Any]:
    small = {"prompts": 2, "resamples": 0, "sampling": {"max_tokens": 1}}
    return paired.probe_request(paired.PairedProbeRequest(**{**MODEL, **small, **fields}), settings)


@pytest.mark.parametrize(
    ("prepare", "asked", "pointer", "setting"),
    [
        (prepare_determinism, '{"threads": %d}', "/threads", "max_threads"),
        (prepare_determinism, '{"samples": %d}', "/samples", "max_response_tokens"),
        (prepare_kernels, '{"threads": [1, %d]}', "/threads/1", "max_threads"),
        (prepare_paired, '{"prompts": %d}', "/sampling/max_tokens", "max_response_tokens"),
        (prepare_paired, '{"resamples": %d}', "/resamples", "max_resamples"),
        (prepare_paired, '{"engine": {"threads": %d}}', "/engine/threads", "max_threads"),
        (prepare_paired, '{"trainer": {"threads": %d}}', "/trainer/threads", "max_threads"),
        (
            *(prepare_paired, '{"engine": {"kv_cache_gib": %d}}'),
            *("/engine/kv_cache_gib", "max_kv_cache_gib"),
        ),
    ],
)
def test_a_setting_bounds_a_field(
    make_settings: Any, prepare: Prepare, asked: str, pointer: str, setting: str
) -> None:
    settings = make_settings(**{setting: 60})
    assert prepare(json.loads(asked % 60), settings)["request"]
    with pytest.raises(InvalidField, match="61.* is more than this service allows: 60") as raised:
        prepare(json.loads(asked % 61), settings)
    assert raised.value.extras["errors"][0]["pointer"] == pointer
    assert f"DRIFTSCOPE_{setting.upper()}" in raised.value.extras["remedy"]


@pytest.mark.parametrize("prepare", [prepare_determinism, prepare_paired])
def test_a_name_becomes_the_folder_and_the_address_of_the_operator(
    make_settings: Any, prepare: Prepare, tmp_path: Path
) -> None:
    settings = make_settings(models={"ours": tmp_path}, engine_endpoints={"a": SERVER})
    kind = "engine" if prepare is prepare_determinism else "kind"
    engine: dict[str, Any] = {kind: "vllm-server"}
    asked: dict[str, Any] = {"model": "ours", "engine_endpoint": "a", "engine_dtypes": ["bf16"]}
    asked |= engine if prepare is prepare_determinism else {"engine": engine}
    prepared = prepare(asked, settings)
    assert prepared["model_path"] == str(tmp_path)
    told = prepared["request"] if prepare is prepare_determinism else prepared["request"]["engine"]
    assert (told["server_url"], told["server_model"]) == (SERVER["url"], SERVER["model"])
    assert "engine_endpoint" not in prepared["request"]
    for wrong in ({"engine_endpoint": "b"}, {"engine_endpoint": None}, {"model": str(tmp_path)}):
        with pytest.raises(InvalidField):
            prepare({**asked, **wrong}, settings)


def test_no_client_gives_an_address() -> None:
    with pytest.raises(ValidationError, match="server_url"):
        determinism.DeterminismProbeRequest(**MODEL, server_url=SERVER["url"])
    with pytest.raises(ValidationError, match="server_url"):
        paired.PairedProbeRequest(**MODEL, engine={"server_url": SERVER["url"]})


@pytest.mark.parametrize(("cores", "threads"), [(1, [1]), (2, [1, 2]), (64, [1, 2])])
def test_kernels_are_checked_with_two_threads_where_there_are_two(
    make_settings: Any, cores: int, threads: list[int]
) -> None:
    assert prepare_kernels({}, make_settings(max_threads=cores))["request"]["threads"] == threads


def test_a_night_keeps_its_history_in_the_data_folder(make_settings: Any, tmp_path: Path) -> None:
    (file := tmp_path / "night.toml").touch()
    default, own = make_settings(), make_settings(nightly_config=file)
    history = str(default.data_dir / "nightly")
    asked = [nightly.probe_request(None, settings)["request"] for settings in (default, own)]
    assert asked[0] == {"config": None, "history": history}
    assert asked[1] == {"config": str(file), "history": history}


def test_the_trainers_model_is_one_of_the_services(make_settings: Any, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    settings = make_settings(models={"own": folder})
    prepared = prepare_paired({"trainer_model": "own"}, settings)
    assert prepared["trainer_model_path"] == str(folder)
    assert prepared["request"]["trainer_model"] == "own"
    assert prepare_paired({}, settings)["trainer_model_path"] is None
    with pytest.raises(InvalidField, match="there is no model './folder' here") as raised:
        prepare_paired({"trainer_model": "./folder"}, settings)
    assert raised.value.extras["errors"][0]["pointer"] == "/trainer_model"


def test_no_client_names_the_folder_of_an_adapter() -> None:
    with pytest.raises(ValidationError, match="adapter"):
        paired.PairedProbeRequest(**{**MODEL, "adapter": "/etc"})
