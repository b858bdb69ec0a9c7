"""Bodies that are no step: each is refused with a reason and a remedy, and leaves nothing."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from ulid import ULID

MEDIA_TYPES = (
    "application/vnd.safetensors",
    "application/vnd.apache.arrow.stream",
    "application/json",
)
Tensors = dict[str, Any]


@pytest.fixture(scope="module")
def good() -> bytes:
    random = np.random.default_rng(0)
    logprobs = np.log(random.beta(3, 1, 18)).astype(np.float32)
    return save(
        {
            "rollout_logprobs": logprobs,
            "trainer_logprobs": logprobs,
            "cu_seqlens": np.array([0, 5, 18]),
            "mask": np.ones(18, np.uint8),
            "token_ids": np.arange(18, dtype=np.int32),
        },
        {"model": "m"},
    )


def refused(pushing: Any, body: bytes, **headers: str) -> str:
    """The reason; nothing must be left."""
    answer = pushing.push(body, headers={name.replace("_", "-"): x for name, x in headers.items()})
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "/problems/malformed-step"
    assert problem["detail"] and problem["remedy"]
    assert str(pushing.data_dir) not in answer.text
    assert pushing.nothing_left()
    return str(problem["detail"])


def with_header(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entries(good: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", good[:8])
    return json.loads(good[8 : 8 + length]), good[8 + length :]


def lying(good: bytes) -> Iterator[tuple[str, bytes, str]]:
    header, data = entries(good)

    def changed(name: str, **fields: Any) -> bytes:
        return with_header({**header, name: {**header[name], **fields}}, data)

    first = header["rollout_logprobs"]["data_offsets"]
    yield "wrong dtype", changed("rollout_logprobs", dtype="I32"), "dtype"
    yield "unknown dtype", changed("mask", dtype="PICKLE"), "dtype"
    yield "overlapping", changed("trainer_logprobs", data_offsets=first), "overlaps"
    yield "lying shape", changed("token_ids", shape=[19]), "needs"
    yield "2^63 tokens", changed("token_ids", shape=[2**63]), "2^63"
    yield "2^62 tokens", changed("mask", shape=[2**62], data_offsets=[0, 2**62]), ""
    yield "negative offset", changed("mask", data_offsets=[-18, 0]), "offsets"
    yield "header of 2^63", struct.pack("<Q", 2**63) + good[8:], "header"
    yield "header past the end", struct.pack("<Q", len(good)) + good[8:], "header"
    yield "more data", good + b"\0", "describes"
    yield "a name unknown", with_header({**header, "code": header["mask"]}, data), "code"
    text = json.dumps(header).encode()
    twice = text[:-1] + b', "mask": ' + json.dumps(header["mask"]).encode() + b"}"
    yield "a name twice", with_header(twice, data), "twice"
    yield "no JSON", with_header(b"{" * 1000, data), "JSON"
    yield "nested", with_header(b"[" * 100_000, data), "100,000 lists"


def test_headers_that_lie(pushing: Any, good: bytes) -> None:
    for name, body, told in lying(good):
        assert told in refused(pushing, body), name
    assert pushing.push(good).status_code == 201


def test_tensors_that_disagree(pushing: Any) -> None:
    def body(**tensors: Any) -> bytes:
        found: bytes = pushing.body([4, 2], **tensors)
        return found

    cases = (
        (body(mask=np.ones(5, np.uint8)), "mask"),
        (body(mask=np.full(6, 2, np.uint8)), "mask has the value 2"),
        (body(rank=np.array([0, -1], np.int32)), "rank is -1 for sequence 1"),
        (body(replica=np.zeros(6, np.int32)), "replica has shape [6]"),
        (body(routed_experts=np.zeros((6, 1, 1), np.float32)), "accepted: U8, I16, U16, I32, I64"),
        (
            body(environment=np.array([0, 2], np.int32), metadata={"environments": "math,code"}),
            "lists 2: accepted is 0 to 1",
        ),
        (
            body(
                cached_tokens=np.array([5, 0], np.int32), prompt_lengths=np.array([4, 9], np.int32)
            ),
            "cached_tokens is 5 for sequence 0",
        ),
        (body(cu_seqlens=np.array([0, 4, 7])), "cu_seqlens"),
        (body(cu_seqlens=np.array([0, 5, 4, 6])), "cu_seqlens"),
        (body(cu_seqlens=np.array([0, 2**62, -(2**62), 6])), "cu_seqlens"),
        (body(metadata={"schema_version": "9"}), "schema_version"),
    )
    for malformed, told in cases:
        assert told in refused(pushing, malformed)


def test_zstd_that_is_not_what_it_says(pushing: Any, good: bytes) -> None:
    packed = zstandard.compress(good)
    bomb = zstandard.compress(bytes(2**28), 19)
    for body, told in (
        (good, "zstd"),
        (packed[:-3], "short"),
        (packed + b"\0", "after the end"),
        (packed + packed, "after the end"),
        (bomb, "times as many"),
        (b"", "short"),
    ):
        assert told in refused(pushing, body, content_encoding="zstd")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_bodies(pushing: Any, good: bytes, data: st.DataObject) -> None:
    """Cut, changed or made up: refused, or (where a value was hit) a step like any other."""
    damage = data.draw(st.sampled_from(["cut", "change", "make up"]))
    if damage == "cut":
        body = good[: data.draw(st.integers(0, len(good) - 1))]
    elif damage == "change":
        place = data.draw(st.integers(0, len(good) - 73))  # before the log-probabilities
        body = good[:place] + bytes([data.draw(st.integers(0, 255))]) + good[place + 1 :]
    else:
        body = data.draw(st.binary(max_size=200))
    media_type = data.draw(st.sampled_from(MEDIA_TYPES)) if damage == "make up" else MEDIA_TYPES[0]
    run = str(ULID())  # never one of an earlier example, whose step may be there
    before = pushing.rows()
    answer = pushing.push(body, run=run, headers={"content-type": media_type})
    assert pushing.incoming() == []
    if answer.status_code in (200, 201):
        assert damage == "change"
        return
    assert answer.status_code == 400, answer.text
    assert answer.json()["detail"] and answer.json()["remedy"]
    assert pushing.rows() == before


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    fields=st.dictionaries(
        st.sampled_from(["rollout_logprobs", "trainer_logprobs", "cu_seqlens", "mask", "metadata"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
    )
)
def test_json_of_any_shape(pushing: Any, fields: dict[str, Any]) -> None:
    before = pushing.rows()
    answer = pushing.push(json.dumps(fields), headers={"content-type": "application/json"})
    assert answer.status_code in (200, 201, 400, 409), answer.text
    if answer.status_code == 400:
        assert answer.json()["type"] == "/problems/malformed-step"
        assert pushing.rows() == before
    assert pushing.incoming() == []
