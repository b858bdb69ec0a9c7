"""Work folders of jobs: what is shown of the logs, what stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from driftscope_service.jobs.job import (
    LOG_KEPT_CHARACTERS,
    LOG_TAIL_BYTES,
    AttemptFolder,
    JobFolder,
)


@pytest.fixture
def folder(tmp_path: Path) -> AttemptFolder:
    folder = JobFolder(tmp_path, "job_1").attempt(1)
    (folder.path / "rollout" / "deep").mkdir(parents=True)
    return folder


def test_logs_in_order_of_time_each_from_its_end(folder: AttemptFolder) -> None:
    (folder.path / "log.txt").write_text("x" * LOG_TAIL_BYTES + "the end")
    (folder.path / "rollout" / "log.txt").write_text("the engine")
    os.utime(folder.path / "rollout" / "log.txt", (1, 1))
    logs = folder.logs()
    assert logs.startswith("== rollout/log.txt ==\nthe engine\n== log.txt ==\n[… 7 bytes before]")
    assert logs.endswith("the end\n")
    assert len(logs) < LOG_TAIL_BYTES + 200


def test_bytes_that_are_no_text_are_shown_all_the_same(folder: AttemptFolder) -> None:
    (folder.path / "log.txt").write_bytes(b"\xff\xfebroken")
    assert "broken" in folder.logs()


def test_tidy_keeps_words_and_drops_numbers(folder: AttemptFolder, tmp_path: Path) -> None:
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
    assert folder.newest.logs() == ""
    folder.newest.tidy()


def test_the_newest_attempt_is_the_highest_number(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path, "job_3")
    folder.path.mkdir(parents=True)
    (folder.path / "log.txt").write_text("of a version with one folder for all")
    assert "one folder for all" in folder.newest.logs()
    for number in (1, 9, 10):
        folder.attempt(number).path.mkdir()
        (folder.attempt(number).path / "log.txt").write_text(f"attempt {number}")
    (folder.path / "attempt-x").mkdir()
    assert folder.newest == folder.attempt(10)
    assert folder.newest.logs() == "== log.txt ==\nattempt 10\n"
    folder.remove()
    assert not folder.path.exists()


def test_what_the_database_keeps_is_bounded_and_storable(folder: AttemptFolder) -> None:
    (folder.path / "log.txt").write_bytes(b"x" * 2 * LOG_KEPT_CHARACTERS + b"the\x00end")
    tail = folder.log_tail()
    assert len(tail) == LOG_KEPT_CHARACTERS
    assert tail.endswith("the\ufffdend\n")
