import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.push.json_step import parse_object
from driftscope_probes.push.rules import PushError


def test_an_object() -> None:
    assert parse_object('{"a": [1, null, NaN], "b": {"a": "ü"}}'.encode(), "it")["b"] == {"a": "ü"}


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b'{"a": 1, "a": 2}', "'a' occurs twice"),
        (b'{"a": {"b": 1, "\\u0062": 2}}', "'b' occurs twice"),
        (b'{"a": 1} x', "not valid JSON"),
        ('{"a": 1}'.encode("utf-16"), "not valid JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not valid JSON"),
        (b"[" * 10**6, "1,000,000 lists"),
        (b"3", "a JSON int"),
    ],
)
def test_refused(raw: bytes, told: str) -> None:
    with pytest.raises(PushError, match=told):
        parse_object(raw, "it")


@settings(max_examples=200, deadline=None)
@given(raw=st.binary(max_size=40))
def test_any_bytes(raw: bytes) -> None:
    try:
        assert isinstance(parse_object(raw, "it"), dict)
    except PushError as error:
        assert error.message.startswith("it is")
