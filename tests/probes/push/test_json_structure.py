"""Lists, objects and names are counted before a document is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.push.json_step import parse
from driftscope_probes.push.json_structure import MAX_MARKS, marks_beyond
from driftscope_probes.push.rules import PushError

DOCUMENTS = st.recursive(
    st.text('[]{}:"\\,a\u00e9', max_size=6) | st.integers() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text('[{:"\\', max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)


def counted(value: Any) -> int:
    if isinstance(value, list):
        return 1 + sum(map(counted, value))
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(counted, value.values()))
    return 0


@given(DOCUMENTS, st.booleans())
def test_as_a_reader_counts(document: Any, ascii_: bool) -> None:
    raw = json.dumps(document, ensure_ascii=ascii_).encode()
    marks = counted(document)
    assert marks_beyond(raw, marks) is None
    if marks:
        assert marks_beyond(raw, marks - 1) == marks


@pytest.mark.parametrize("unit", [b"[],", b"{},", b'{"a":[]},', b"[[[[", b'["', b'"\\"[",[],'])
def test_bodies_of_15_mb(unit: bytes) -> None:
    body = b"[" + unit * (15_000_000 // len(unit)) + b"]"
    with pytest.raises(PushError, match=r"lists, objects and names|is not valid JSON"):
        parse(body, "it")


def test_what_stands_in_strings_does_not_count() -> None:
    text = '[{:\\"' * MAX_MARKS
    assert parse(json.dumps([text]).encode(), "it") == [text]
