"""Whatever a killed process leaves behind loads, and what was finished is still there."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.nightly.history import (
    ITEMS,
    MOST_NIGHTS,
    REPORT,
    STATE,
    load_history,
    start_night,
)
from driftscope_probes.nightly.item import Finding

FINDINGS = {
    f"kernel/a/linear/{number}/fp32/t1": Finding("PROVED", 0.5, {"reason": "ä" * number}, None)
    for number in range(4)
}


def environment() -> dict[str, Any]:
    return {
        **{"python": "3", "platform": "Linux", "commit": None, "variables": {}},
        **{"packages": {}, "hardware": {"cpu": "x"}, "libraries": {}, "kernel_packages": {}},
    }


def a_night(history: Path) -> Path:
    night = start_night(history, "sha", {"hardware": {}, "versions": {}}, environment())
    for name, finding in FINDINGS.items():
        night.finish(name, finding)
    return night.folder


def long_ago() -> datetime:
    return datetime.now(UTC) - timedelta(days=1)


def test_what_was_recorded_is_loaded(tmp_path: Path) -> None:
    a_night(tmp_path)
    history = load_history(tmp_path)
    assert history.notes == ()
    (night,) = history.nights
    assert dict(night.findings) == FINDINGS
    assert night.report is None
    assert history.unfinished("sha", environment(), long_ago()) == night


@pytest.mark.parametrize("change", ["config", "environment", "age", "newer"])
def test_a_night_of_something_else_is_not_gone_on_with(tmp_path: Path, change: str) -> None:
    a_night(tmp_path)
    sha, now, since = "sha", environment(), long_ago()
    if change == "config":
        sha = "other"
    elif change == "environment":
        now["packages"] = {"torch": "2.14.0"}
    elif change == "age":
        since = datetime.now(UTC) + timedelta(hours=1)
    else:
        start_night(tmp_path, "other", {}, environment())
    assert load_history(tmp_path).unfinished(sha, now, since) is None


def test_items_cut_at_any_byte_lose_only_the_line_that_is_cut(tmp_path: Path) -> None:
    folder = a_night(tmp_path)
    whole = (folder / ITEMS).read_bytes()
    names = list(FINDINGS)
    for length in range(len(whole)):
        (folder / ITEMS).write_bytes(whole[:length])
        history = load_history(tmp_path)
        (night,) = history.nights
        # A line that lacks nothing but its end of line is whole.
        complete = whole[:length].count(b"\n") + (whole[length : length + 1] == b"\n")
        assert list(night.findings) == names[:complete]
        partial = length > 0 and whole[length - 1 : length] != b"\n"
        assert len(history.notes) == (partial and whole[length : length + 1] != b"\n")


def test_recording_goes_on_after_half_a_line(tmp_path: Path) -> None:
    folder = a_night(tmp_path)
    whole = (folder / ITEMS).read_bytes()
    for cut in (1, 2, 40):
        (folder / ITEMS).write_bytes(whole[:-cut])
        (night,) = load_history(tmp_path).nights
        night.finish("kernel/new", Finding("REFUTED", 1.0, {}, "replay"))
        (after,) = load_history(tmp_path).nights
        assert list(after.findings) == [*night.findings, "kernel/new"]


@pytest.mark.parametrize("name", [STATE, REPORT])
def test_a_finished_night_with_a_file_cut_at_any_byte_loads(nights: Any, name: str) -> None:
    nights.run()
    (stamp,) = [path for path in nights.history.iterdir() if path.is_dir()]
    whole = (stamp / name).read_bytes()
    # Every byte near the ends, where the kinds of damage are; between them every 7th.
    lengths = sorted({*range(60), *range(0, len(whole), 7), *range(len(whole) - 60, len(whole))})
    for length in lengths:
        (stamp / name).write_bytes(whole[:length])
        history = load_history(nights.history)
        assert len(history.notes) == 1
        # Without its state a night is nothing; without its report it is one that did not end.
        assert [night.report for night in history.nights] == ([] if name == STATE else [None])
    (stamp / name).write_bytes(whole)
    assert load_history(nights.history).notes == ()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@given(
    field=st.sampled_from(
        ["key", "config", "environment", "items", "started_at", "config_sha256", "nothing"]
    ),
    value=JSON_VALUES,
    name=st.sampled_from([STATE, REPORT, ITEMS]),
)
@settings(max_examples=60, deadline=None)
def test_foreign_values_load_too(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: object, name: str
) -> None:
    history = tmp_path_factory.mktemp("history")
    folder = a_night(history)
    text = (folder / STATE).read_text(encoding="utf-8")
    (folder / name).write_text(json.dumps({**json.loads(text), field: value}), encoding="utf-8")
    loaded = load_history(history)
    for night in loaded.nights:
        loaded.unfinished("sha", environment(), long_ago())
        assert night.folder == folder
    shutil.rmtree(history)


@pytest.mark.parametrize("detail", [None, [], {"bits": 7}])
def test_a_detail_that_is_none_is_left_out(nights: Any, detail: object) -> None:
    nights.run()
    (folder,) = (night.folder for night in load_history(nights.history).nights)
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    report["items"][0]["detail"] = detail
    (folder / REPORT).write_text(json.dumps(report), encoding="utf-8")
    line = {"id": "kernel/new", "verdict": "PROVED", "seconds": 1, "detail": detail}
    with (folder / ITEMS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    history = load_history(nights.history)
    assert history.nights[0].report is None
    assert "kernel/new" not in history.nights[0].findings
    assert len(history.notes) == 2


def test_foreign_and_unfinished_folders_are_left_alone_or_noted(tmp_path: Path) -> None:
    (tmp_path / "20260101T000000Z").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "20260102T000000Z").write_text("a file")
    history = load_history(tmp_path)
    assert history.nights == ()
    assert len(history.notes) == 2
    assert load_history(tmp_path / "absent").nights == ()


def test_a_start_that_was_killed_while_it_made_its_folder_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".partial-20260101T000000Z").mkdir()
    a_night(tmp_path)
    assert [path.name[0] for path in tmp_path.iterdir()] == ["2"]
    assert len(load_history(tmp_path).nights) == 1


def test_two_nights_of_one_second_have_two_folders_in_order(tmp_path: Path) -> None:
    first, second = a_night(tmp_path), a_night(tmp_path)
    assert [night.folder for night in load_history(tmp_path).nights] == [second, first]


def test_only_the_latest_nights_are_read(tmp_path: Path) -> None:
    for number in range(MOST_NIGHTS + 5):
        (tmp_path / f"20260101T{number // 60:02}{number % 60:02}00Z").mkdir()
    assert len(load_history(tmp_path).notes) == MOST_NIGHTS
