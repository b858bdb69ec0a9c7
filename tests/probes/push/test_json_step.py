import json
import math
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.push.readers.json_file import read_json_step
from driftscope_probes.push.rules import MAX_JSON_BYTES, REQUIRED, PushError
from driftscope_probes.tokens import SEQUENCE_LABELS

NESTED: dict[str, Any] = {
    "metadata": {"model": "m"},
    "rollout_logprobs": [[-0.5, -1.0], [], [-0.25]],
    "trainer_logprobs": [[-0.5, -1.125], [], [None]],
    "mask": [[1, 0], [], [1]],
    "token_ids": [[5, 6], [], [7]],
    "behavior_version": [1, 1, 2],
    "rank": [0, 1, 3],
    "replica": [1, 0, 0],
    "cached_tokens": [0, 16, 4],
    "prompt_lengths": [3, 20, 4],
    "environment": [0, 0, 1],
}
LABELS = ("behavior_version", "rank", "replica", "cached_tokens", "prompt_lengths", "environment")
FLAT: dict[str, Any] = {
    "rollout_logprobs": [-0.5, -1.0, -0.25],
    "trainer_logprobs": [-0.5, -1.125, float("-inf")],
    "cu_seqlens": [0, 2, 2, 3],
}


def read(tmp_path: Path, content: object) -> PushedStep:
    path = tmp_path / "step.json"
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(raw)
    return read_json_step(path)


def test_one_list_per_sequence(tmp_path: Path) -> None:
    step = read(tmp_path, NESTED)
    assert step.cu_seqlens.tolist() == [0, 2, 2, 3]
    assert step.mask.tolist() == [True, False, True]
    assert step.trainer[:2].tolist() == [-0.5, -1.125]
    assert math.isnan(step.trainer[2])
    for name in LABELS:
        assert step.tensors()[name].tolist() == NESTED[name], name
        assert step.tensors()[name].dtype == np.int32
    assert step.metadata == {"schema_version": "1", "model": "m"}


def test_sides_with_other_token_ids(tmp_path: Path) -> None:
    ids = [[5, 6], [], [8]]
    assert read(tmp_path, {**NESTED, "rollout_token_ids": ids}).rollout_token_ids is not None
    alone = {name: values for name, values in NESTED.items() if name != "token_ids"}
    step = read(tmp_path, {**alone, "rollout_token_ids": ids})
    assert step.rollout_token_ids is not None and step.extras.token_ids is None
    assert step.rollout_token_ids.tolist() == [5, 6, 8]


def test_flat_lists(tmp_path: Path) -> None:
    step = read(tmp_path, FLAT)
    assert step.trainer.tolist() == [-0.5, -1.125, -math.inf]
    assert step.rollout.dtype == np.float32
    assert step.mask.all()


INT32 = st.integers(-(2**31), 2**31 - 1)
COUNTED = st.integers(0, 2**30)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    nested=st.booleans(),
    data=st.data(),
)
def test_labels_and_both_sides_ids_come_back(
    tmp_path: Path, lengths: list[int], nested: bool, data: st.DataObject
) -> None:
    def per_token(values: st.SearchStrategy[Any]) -> list[Any]:
        rows = [data.draw(st.lists(values, min_size=n, max_size=n)) for n in lengths]
        return rows if nested else list(chain.from_iterable(rows))

    sent: dict[str, Any] = {name: per_token(st.just(-1.0)) for name in REQUIRED}
    sent |= {name: per_token(INT32) for name in ("token_ids", "rollout_token_ids")}
    for name in data.draw(st.sets(st.sampled_from(SEQUENCE_LABELS))):
        values = st.integers(2**30, 2**31 - 1) if name == "prompt_lengths" else COUNTED
        sent[name] = data.draw(st.lists(values, min_size=len(lengths), max_size=len(lengths)))
    if not nested:
        sent["cu_seqlens"] = [0, *accumulate(lengths)]
    step = read(tmp_path, sent).tensors()
    assert step.keys() == {*sent, "mask", "cu_seqlens"}
    for name, values in sent.items():
        flat = chain.from_iterable(values) if values and isinstance(values[0], list) else values
        assert step[name].tolist() == list(flat), name


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"mask": [[1, 0], [1], []]}, "mask has 1 tokens in sequence 1 .*, rollout_logprobs has 0"),
        ({"mask": [1, 0, 1]}, "mask is not a list of lists"),
        ({"trainer_logprobs": "x"}, "trainer_logprobs is not a list of lists"),
        ({"token_ids": [[5, 6], [], [2**31]]}, "token_ids cannot be read: 2147483648 at 2"),
        ({"rank": [0, 1]}, r"rank has shape \[2\]"),
        ({"rank": [[0], 1, [2]]}, "rank is not a list of lists"),
        ({"environment": ["math", "math", "code"]}, "environment cannot be read: str at 0"),
        ({"environment": [0, 0, 2], "metadata": {"environments": "a,b"}}, "accepted is 0 to 1"),
        ({"cached_tokens": [4, 0, 0]}, "cached_tokens is 4 for sequence 0, .* is 3"),
        ({"replica": [0, -1, 0]}, "replica is -1 for sequence 1"),
        ({"behavior_version": [1]}, r"behavior_version has shape \[1\]"),
        ({"loss": []}, "there is a field 'loss'"),
        ({"routed_experts": []}, "there is a field 'routed_experts'"),
        ({"metadata": {"schema_version": 1}}, "'schema_version' is a int"),
        ({"cu_seqlens": [0, 2, 2, 3]}, "list at 0"),
    ],
)
def test_refused(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    with pytest.raises(PushError, match=told) as caught:
        read(tmp_path, {**NESTED, **changed})
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["rollout_logprobs", "trainer_logprobs"])
def test_a_missing_side(tmp_path: Path, name: str) -> None:
    with pytest.raises(PushError, match=f"there is no {name}"):
        read(tmp_path, {other: v for other, v in NESTED.items() if other != name})


def test_size_is_limited(tmp_path: Path) -> None:
    with pytest.raises(PushError, match="16,777,216 bytes of JSON"):
        read(tmp_path, b" " * (MAX_JSON_BYTES + 1))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(base=st.sampled_from([NESTED, FLAT]), data=st.data())
def test_any_value_in_any_field(tmp_path: Path, base: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(NESTED | FLAT)))
    try:
        step = read(tmp_path, {**base, name: data.draw(JSON)})
    except PushError as error:
        assert error.message and error.remedy
    else:
        assert step.cu_seqlens[-1] == step.tokens == step.trainer.size
