"""Reports on disk: whole or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from driftscope_service.experiments.store import ReportFiles
from driftscope_service.store.storage.local import LocalStorage


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    pairs = tmp_path / "work" / "pairs"
    pairs.mkdir(parents=True)
    (pairs / "a.safetensors").write_bytes(b"tensors")
    (tmp_path / "secret").write_text("not yours")
    return tmp_path / "work"


def files_in(tmp_path: Path) -> ReportFiles:
    return ReportFiles(LocalStorage(tmp_path / "data"))


def report_with(*names: str | None) -> dict[str, Any]:
    return {"grid": [{"pair_file": name} for name in names]}


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_report_and_its_pairs_move_in(tmp_path: Path, workdir: Path) -> None:
    files = files_in(tmp_path)
    stored = files.write(report_with("pairs/a.safetensors", None), workdir)
    folder = files.path(stored.path).parent
    assert folder == tmp_path / "data" / "reports" / stored.report_id
    assert files_below(folder) == {"report.json", "pairs/a.safetensors"}
    assert json.loads(files.path(stored.path).read_text())["grid"]
    assert stored.size_bytes == files.path(stored.path).stat().st_size
    assert not (workdir / "pairs" / "a.safetensors").exists()


@pytest.mark.parametrize("name", ["../secret", "pairs/../../secret", "/etc/hostname"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, workdir: Path, name: str) -> None:
    with pytest.raises(AssertionError, match="leaves its folder"):
        files_in(tmp_path).write(report_with(name), workdir)
    assert (tmp_path / "secret").exists()


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, workdir: Path) -> None:
    (workdir / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(AssertionError, match="leaves its folder"):
        files_in(tmp_path).write(report_with("link"), workdir)


def test_not_a_number_is_refused(tmp_path: Path, workdir: Path) -> None:
    report = {**report_with("pairs/a.safetensors"), "value": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        files_in(tmp_path).write(report, workdir)
    assert not files_below(tmp_path / "data")
    assert (workdir / "pairs" / "a.safetensors").exists()


def test_a_pair_file_that_is_missing_leaves_nothing(tmp_path: Path, workdir: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files_in(tmp_path).write(report_with("pairs/a.safetensors", "pairs/b"), workdir)
    assert not files_below(tmp_path / "data")


def test_a_discarded_report_leaves_no_folder(tmp_path: Path, workdir: Path) -> None:
    files = files_in(tmp_path)
    stored = files.write(report_with("pairs/a.safetensors"), workdir)
    files.discard(stored.report_id)
    assert list((tmp_path / "data" / "reports").iterdir()) == []
    with pytest.raises(FileNotFoundError):
        files.path(stored.path)
    files.discard("report_of_nobody")
