"""Work folders of jobs: what is shown of the logs, what stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from driftscope_service.jobs.job import LOG_TAIL_BYTES, JobFolder


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    folder = JobFolder(tmp_path, "job_1")
    (folder.path / "rollout" / "deep").mkdir(parents=True)
    return folder


def test_logs_in_order_of_time_each_from_its_end(folder: JobFolder) -> None:
    (folder.path / "log.txt").write_text("x" * LOG_TAIL_BYTES + "the end")
    (folder.path / "rollout" / "log.txt").write_text("the engine")
    os.utime(folder.path / "rollout" / "log.txt", (1, 1))
    logs = folder.logs()
    assert logs.startswith("== rollout/log.txt ==\nthe engine\n== log.txt ==\n[… 7 bytes before]")
    assert logs.endswith("the end\n")
    assert len(logs) < LOG_TAIL_BYTES + 200


def test_bytes_that_are_no_text_are_shown_all_the_same(folder: JobFolder) -> None:
    (folder.path / "log.txt").write_bytes(b"\xff\xfebroken")
    assert "broken" in folder.logs()


def test_tidy_keeps_words_and_drops_numbers(folder: JobFolder, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("")
    for name in ("log.txt", "request.json", "result.json", "rollout/log.txt", "rollout/deep/a.bin"):
        (folder.path / name).write_text("")
    (folder.path / "link").symlink_to(tmp_path / "outside")
    folder.tidy()
    left = {str(path.relative_to(folder.path)) for path in folder.path.rglob("*")}
    assert left == {"log.txt", "request.json", "rollout", "rollout/log.txt"}
    assert (tmp_path / "outside" / "kept").exists()


def test_a_job_that_never_ran_has_no_folder(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path, "job_2")
    assert folder.logs() == ""
    folder.tidy()
