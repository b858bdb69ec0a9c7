from pathlib import Path

import pytest

from driftscope_probes.errors import ModelError
from driftscope_probes.models.json_file import read_json, write_json

LIMIT = 1000


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    write_json(path, {"b": [1, 2.5, None], "a": "é"})
    assert read_json(path, LIMIT) == {"a": "é", "b": [1, 2.5, None]}


def test_the_order_of_keys_does_not_change_the_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "1", {"a": 1, "b": 2})
    write_json(tmp_path / "2", {"b": 2, "a": 1})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1', "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b"[1, 2]", "JSON list"),
        (b"[" * LIMIT, "not valid JSON"),
        (b'{"a": "' + b"x" * LIMIT + b'"}', "larger than 1,000 bytes"),
    ],
)
def test_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        read_json(path, LIMIT)
    assert str(path) in caught.value.message
    assert caught.value.remedy


def test_nesting_deeper_than_the_parser_goes(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"[" * 200_000)
    with pytest.raises(ModelError, match="not valid JSON"):
        read_json(path, 10**6)
