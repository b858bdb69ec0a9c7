"""What crosses between machines: nothing malformed, of another size or another version gets in."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load, save

from driftscope_probes.matrix.work import AnswerError, Work, most_bytes, pack, same_bits, unpack

from .made_up import ENVIRONMENT, FORWARD, GREEDY, WORK, answer, moved, scores

SENT = pack(answer(forward=scores(moved(0.5))))
GOOD = {"environment": ENVIRONMENT, "notes": [], "timing": {"total_s": 1.0}}
FACTS = {"facts": json.dumps(GOOD)}


def test_an_answer_arrives_bit_for_bit() -> None:
    nan = np.full((2, 3), np.nan, np.float32)
    found = unpack(pack(answer(forward=scores(nan))), WORK)
    assert same_bits(found.scores[FORWARD].logprobs, nan)
    assert found.scores[GREEDY].tokens is not None
    assert found.facts["environment"] == ENVIRONMENT


def test_work_is_json() -> None:
    asked = replace(WORK, responses=((1, 2, 3), (4, 5, 6)))
    assert Work.from_dict(json.loads(json.dumps(asked.to_dict()))) == asked


def test_work_of_another_version_is_refused() -> None:
    with pytest.raises(AnswerError, match="speaks version"):
        Work.from_dict({**WORK.to_dict(), "protocol": "0"})


def changed(**tensors: NDArray[Any] | None) -> bytes:
    every = {**load(SENT), **tensors}
    return save({name: one for name, one in every.items() if one is not None}, metadata=FACTS)


def with_facts(**facts: object) -> bytes:
    return save(load(SENT), metadata={"facts": json.dumps({**GOOD, **facts})})


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (changed(responses=None), "responses is missing"),
        (changed(responses=np.zeros((2, 4), np.int32)), r"responses is int32 \[2, 4\]"),
        (changed(responses=np.zeros((2, 3), np.float64)), "responses is float64"),
        (changed(other=np.zeros(1, np.int32)), "'other', which nobody asked for"),
        (save(load(SENT)), "facts cannot be read"),
        (save(load(SENT), metadata={"facts": "[]"}), "facts cannot be read"),
        (save(load(SENT), metadata={"facts": '{"environment": {}}'}), "facts cannot be read"),
        (with_facts(timing={"total_s": float("nan")}), "facts cannot be read"),
        (with_facts(timing=[]), "facts cannot be read"),
        (with_facts(notes=[{}]), "facts cannot be read"),
        (with_facts(environment={**ENVIRONMENT, "python": 3}), "facts cannot be read"),
        (b"", "header has 0 bytes"),
        (b"\xff" * 64, "its header has"),
        (SENT + b"\0" * most_bytes(WORK), "at most"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(sent: bytes, told: str) -> None:
    with pytest.raises(AnswerError, match=told):
        unpack(sent, WORK)


@given(st.integers(0, len(SENT) - 1), st.binary(min_size=1, max_size=8))
def test_damaged_bytes_are_an_answer_or_an_error(offset: int, patch: bytes) -> None:
    damaged = SENT[:offset] + patch + SENT[offset + len(patch) :]
    for sent in (damaged, SENT[:offset]):
        try:
            unpack(sent, WORK)
        except AnswerError:
            pass
