"""The text of a digest: read back as it was, within the limits of metadata, and never trusted."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_kernels.on_policy.weights.recorded import (
    KINDS,
    MOST_NAMED,
    WeightsDigest,
    of_metadata,
    read_text,
)

WHOLE = WeightsDigest(20, "0" * 16, "f" * 16, ("lm_head.weight",), "tied_head_stale", 1, 2, 1, 0.5)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text(max_size=120), max_size=8),
    st.sampled_from(KINDS),
    st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False, min_value=0)),
)
def test_the_text_fits_and_is_read_back(
    names: list[str], kind: str, function_diff: float | None
) -> None:
    made = WeightsDigest(
        10**14, "0" * 16, "f" * 16, tuple(names), kind,  # type: ignore[arg-type]
        len(names), 10**14, 10**14, function_diff,
    )  # fmt: skip
    text = str(made)
    assert len(text) <= 1024 and text.isprintable() and text.isascii()
    found = read_text(text)
    assert found is not None and str(found) == text
    assert len(found.differing) <= MOST_NAMED and found.differing_tensors == len(names)


def test_whole() -> None:
    assert of_metadata({"weights_digest": str(WHOLE)}) == WHOLE
    assert of_metadata({}) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "equal",
        "[]",
        "[" * 5000,
        '{"kind": "fine", "version": 1, "trainer": "a", "rollout": "b"}',
        '{"kind": "equal", "version": -1, "trainer": "a", "rollout": "b"}',
        '{"kind": "equal", "version": true, "trainer": "a", "rollout": "b"}',
        '{"kind": ["equal"], "version": 1, "trainer": "a", "rollout": "b"}',
        '{"kind": "equal", "version": 1, "trainer": "a"}',
        '{"kind": "equal", "version": 1, "trainer": "a", "rollout": "01234567890123456"}',
        '{"kind": "stale", "version": 1, "trainer": "a", "rollout": "b", "differing": [1]}',
    ],
)
def test_what_cannot_be_read_was_not_said(text: str) -> None:
    assert read_text(text) is None


def test_the_rest_may_be_left_out() -> None:
    found = read_text('{"kind": "stale", "version": 1, "trainer": "a", "rollout": "b"}')
    assert found is not None and not found.matches and found.versions_behind is None
    odd = json.loads(str(WHOLE)) | {"function_diff": "much", "versions_behind": -3}
    found = read_text(json.dumps(odd))
    assert found is not None and found.function_diff is None and found.versions_behind is None
