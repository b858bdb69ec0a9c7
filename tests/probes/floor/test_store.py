"""Floors on disk: a round trip, which one is found, and files that are broken."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from driftscope_probes.floor.store import (
    FloorFileError,
    FloorStore,
    StoredFloor,
    default_folder,
    find_floor,
    machine,
    read_floor,
)

FIRST = StoredFloor(
    schema_version="1",
    model="smollm2-135m",
    fingerprint="sha256:" + "ab" * 32,
    rollout_dtype="bf16",
    trainer_dtype="bf16",
    machine=machine(),
    sigma=0.09,
    low=0.08,
    high=0.1,
    basis="same_side",
    tokens=512,
    sequences=16,
    measured_by="floor",
    created_at="2026-11-29T17:00:00+00:00",
)


def changed(**fields: object) -> StoredFloor:
    return FIRST.model_copy(update=fields)


def test_a_stored_floor_is_found_by_model_and_dtypes(tmp_path: Path) -> None:
    store = FloorStore(tmp_path / "floors")
    assert store.find("smollm2-135m", "bf16", "bf16") is None  # there is no folder yet
    store.put([FIRST])
    assert store.all() == (FIRST,)
    for model in ("smollm2-135m", "SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M", "./smollm2-135m/"):
        found = store.find(model, "torch.bfloat16", "autocast-bf16+fp32-head")
        assert found is not None and found.source == "calibrated"
        assert (found.sigma, found.interval, found.model) == (0.09, (0.08, 0.1), "smollm2-135m")
        assert "2026-11-29" in found.basis and "KV cache" in found.basis
    assert find_floor(store.folder, "smollm2-135m", "bf16", "bf16") == found
    for missing in (("smollm2", "bf16"), ("smollm2-135m", "fp16"), (None, "bf16")):
        assert store.find(missing[0], missing[1], "bf16") is None
    assert store.find("smollm2-135m", None, "bf16") is None


def test_the_floor_that_fits_best_is_found(tmp_path: Path) -> None:
    store = FloorStore(tmp_path)
    ranked = [  # from worst to best
        changed(model="other/smollm2-135m", sigma=0.1, created_at="2026-12-30T00:00:00+00:00"),
        changed(machine="another CPU", sigma=0.2, created_at="2026-12-30T00:00:00+00:00"),
        changed(measured_by="paired", basis="grid", sigma=0.3),
        changed(fingerprint="sha256:" + "cd" * 32, sigma=0.4),
        changed(sigma=0.5, created_at="2026-11-30T00:00:00+00:00"),
    ]
    for floor in ranked:
        store.put([floor])
        found = store.find("smollm2-135m", "bf16", "bf16")
        assert found is not None and found.sigma == floor.sigma
    old = store.find("smollm2-135m", "bf16", "bf16", fingerprint="sha256:" + "cd" * 32)
    assert old is not None and old.sigma == 0.4
    # For another machine, as where a node of a cluster looks for the service's.
    theirs = find_floor(tmp_path, "smollm2-135m", "bf16", "bf16", here="another CPU")
    assert theirs is not None and theirs.sigma == 0.2


def test_a_new_floor_replaces_the_old_one(tmp_path: Path) -> None:
    store = FloorStore(tmp_path)
    store.put([FIRST])
    store.put([changed(sigma=0.2)])
    assert [floor.sigma for floor in store.all()] == [0.2]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        json.dumps(FIRST.to_dict() | {"sigma": -1.0}),
        json.dumps(FIRST.to_dict() | {"sigma": 0.0}),
        json.dumps(FIRST.to_dict()).replace("0.09", "NaN"),
        "[" * 60_000,
        " " * 100_000,
    ],
)
def test_a_broken_file_is_said_and_passed_over(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = FloorStore(tmp_path)
    path = tmp_path / FIRST.file_name
    path.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert store.find("smollm2-135m", "bf16", "bf16") is None
    assert FIRST.file_name in caplog.text and "the prior is used" in caplog.text
    with pytest.raises(FloorFileError, match="holds no floor"):
        read_floor(path)
    # A good file beside it is still found.
    store.put([changed(machine="another CPU")])
    assert store.find("smollm2-135m", "bf16", "bf16") is not None


def test_bytes_that_are_no_text_and_a_folder_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / FIRST.file_name).write_bytes(b"\xff\xfe\x00")
    (tmp_path / changed(machine="another CPU").file_name).mkdir()
    assert FloorStore(tmp_path).find("smollm2-135m", "bf16", "bf16") is None


def test_a_renamed_file_does_not_give_another_models_floor(tmp_path: Path) -> None:
    store = FloorStore(tmp_path)
    store.put([FIRST])
    name = changed(model="qwen").file_name
    (tmp_path / FIRST.file_name).rename(tmp_path / name)
    assert store.find("qwen", "bf16", "bf16") is None


def test_a_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    store = FloorStore(tmp_path / "floors")
    for model in ("../../etc/passwd", "a*b?[c]", "x" * 500, "org/..", "ü/ß"):
        store.put([changed(model=model)])
        found = store.find(model, "bf16", "bf16")
        assert found is not None and found.model == model
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path / "floors"] * 5


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "floors").write_text("a file")
    with pytest.raises(FloorFileError, match="cannot be stored"):
        FloorStore(tmp_path / "floors").put([FIRST])


def test_the_default_folder_is_the_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRIFTSCOPE_DATA_DIR", raising=False)
    assert default_folder() == Path("driftscope-data/floors")
    monkeypatch.setenv("DRIFTSCOPE_DATA_DIR", "/srv/ds")
    assert default_folder() == Path("/srv/ds/floors")
