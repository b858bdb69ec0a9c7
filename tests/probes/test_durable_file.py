import json
from pathlib import Path

import pytest

from driftscope_probes.durable_file import append_line, write_whole


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    for text in ("first", "ä second"):
        write_whole(tmp_path / "report.json", text)
        assert (tmp_path / "report.json").read_text(encoding="utf-8") == text
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("left", [b"", b'{"a": 1}\n', b'{"a"', b"\xff\xfe"])
def test_a_line_stands_alone_whatever_was_left_before_it(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "items.jsonl"
    path.write_bytes(left)
    append_line(path, {"b": "ü"})
    append_line(path, {"c": None})
    data = path.read_bytes()
    assert data.startswith(left)
    assert [json.loads(line) for line in data.splitlines()[-2:]] == [{"b": "ü"}, {"c": None}]


def test_a_value_that_json_lacks_is_refused_before_the_file_is_touched(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        append_line(tmp_path / "items.jsonl", {"a": float("nan")})
    assert not (tmp_path / "items.jsonl").exists()
