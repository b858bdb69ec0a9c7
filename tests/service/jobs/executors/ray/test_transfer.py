"""What goes to a node and comes back: names, limits, and the way there and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_service.jobs.executors.ray import transfer
from driftscope_service.jobs.executors.ray.errors import TransferError
from driftscope_service.jobs.executors.ray.transfer import (
    check_report_size,
    files_named,
    inside,
    missing_models,
    pack,
    return_path,
    unpack,
)


@pytest.fixture
def night(tmp_path: Path) -> dict[str, Any]:
    here = tmp_path / "service"
    (here / "floors").mkdir(parents=True)
    (here / "floors" / "one.json").write_text("1")
    (here / "nightly" / "20261122T030000Z").mkdir(parents=True)
    (here / "nightly" / "20261122T030000Z" / "report.json").write_text("2")
    (here / "nightly" / "nights.lock").touch()
    (here / "nightly.toml").write_text("3")
    asked = {"config": str(here / "nightly.toml"), "history": str(here / "nightly")}
    return {"kind": "nightly", "request": asked, "floors": str(here / "floors")}


def test_there_and_back(night: dict[str, Any], tmp_path: Path) -> None:
    contents = pack(night)
    assert contents == {
        "floors/one.json": b"1",
        "config/nightly.toml": b"3",
        "history/20261122T030000Z/report.json": b"2",
    }
    node = tmp_path / "node"
    there = unpack(night, contents, node)
    assert Path(there["request"]["config"]).read_text() == "3"
    assert (Path(there["request"]["history"]) / "20261122T030000Z" / "report.json").is_file()
    assert Path(there["floors"]) == node / "floors"
    assert night["floors"] != there["floors"]  # the request itself stays as it is
    assert return_path(night, "floors/new.json") == tmp_path / "service/floors/new.json"
    # A probe writes to folders; the operator's configuration is not one of them.
    for name in ("config/nightly.toml", "elsewhere/file", "floors"):
        with pytest.raises(TransferError):
            return_path(night, name)


def test_of_another_kind_config_is_no_path(night: dict[str, Any]) -> None:
    assert set(pack({**night, "kind": "paired"})) == {"floors/one.json"}


def test_too_much_is_refused(night: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MOST_CARRIED_BYTES", 2)
    with pytest.raises(TransferError, match="3 bytes; at most 2"):
        pack(night)
    monkeypatch.setattr(transfer, "MOST_FILES_BYTES", 2)
    with pytest.raises(TransferError, match="at most 2"):
        files_named({"file": "a"}, {"a": 3})
    with pytest.raises(TransferError, match="the report"):
        check_report_size(transfer.MOST_REPORT_BYTES + 1)


def test_only_what_the_report_names_comes_back() -> None:
    report = {"grid": [{"pair_file": "pairs/a"}, {"pair_file": None}], "notes": ["trace"]}
    sizes = {"pairs/a": 1, "pairs/b": 1, "trace": 1, "result.json": 1}
    assert files_named(report, sizes) == ["pairs/a", "trace"]


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../../up", "nul\0", "link/file"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(TransferError):
        inside(folder, name)


@settings(max_examples=40)
@given(st.text(alphabet="./a\0", max_size=10))
def test_no_name_leaves_the_folder(name: str) -> None:
    folder = Path("/nowhere/job")
    try:
        path = inside(folder, name)
    except TransferError:
        return
    assert path.resolve().is_relative_to(folder) and path != folder


def test_models_that_are_not_here(tmp_path: Path) -> None:
    request = {
        "model_path": str(tmp_path),
        "trainer_model_path": None,
        "older_paths": [None, "/nowhere/b", "/nowhere/a"],
    }
    assert missing_models(request) == ["/nowhere/a", "/nowhere/b"]
    assert missing_models({}) == []
