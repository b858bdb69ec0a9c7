"""Cut anywhere between sequences, the shards join to the step they were cut from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_probes.push.rules import REQUIRED, RULES, PushError, environment_names
from driftscope_probes.push.step_file import join_steps

Tensors = dict[str, NDArray[Any]]


@pytest.fixture
def whole(tensors: Tensors) -> PushedStep:
    tensors["trainer_logprobs"] = tensors["trainer_logprobs"].astype(np.float32)
    tensors["rollout_logprobs"][[0, 4]] = np.array([0x7FC00001, 0xFF800000], np.uint32).view("f4")
    return pushed_step(tensors, {"schema_version": "1", "model": "m"})


def shard(step: PushedStep, first: int, last: int) -> PushedStep:
    tokens = slice(int(step.cu_seqlens[first]), int(step.cu_seqlens[last]))
    kept: dict[str, Any] = {
        name: tensor[tokens] if RULES[name].per == "token" else tensor[first:last]
        for name, tensor in step.tensors().items()
    }
    kept["cu_seqlens"] = step.cu_seqlens[first : last + 1] - step.cu_seqlens[first]
    return pushed_step(kept, dict(step.metadata))


def assert_same(one: PushedStep, other: PushedStep) -> None:
    assert one.metadata == other.metadata
    assert one.tensors().keys() == other.tensors().keys()
    for name, tensor in one.tensors().items():
        expected = other.tensors()[name]
        assert (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape), name
        assert tensor.tobytes() == expected.tobytes(), name


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=9), data=st.data())
def test_cut_and_joined_is_the_whole(
    whole: PushedStep, lengths: Sequence[int], data: st.DataObject
) -> None:
    tokens = np.resize(np.arange(whole.tokens), sum(lengths))
    several: Any = {
        name: tensor[tokens] if RULES[name].per == "token" else np.resize(tensor, len(lengths))
        for name, tensor in whole.tensors().items()
    }
    several["cu_seqlens"] = np.cumsum([0, *lengths])
    step = pushed_step(several, whole.metadata)
    inner = data.draw(st.sets(st.integers(1, max(1, len(lengths) - 1)))) - {len(lengths)}
    edges = [0, *sorted(inner), len(lengths)]
    shards = [shard(step, a, b) for a, b in zip(edges, edges[1:], strict=False)]
    assert_same(join_steps(shards), step)


def test_one_shard_is_the_step(whole: PushedStep) -> None:
    assert join_steps([whole]) is whole


@pytest.mark.parametrize(
    "name", [n for n in RULES if n not in ("cu_seqlens", "mask", "prompt_token_ids")][2:]
)
@pytest.mark.parametrize("lacking", [0, 1])
def test_a_tensor_of_some_shards_only(whole: PushedStep, name: str, lacking: int) -> None:
    def without(*names: str) -> PushedStep:
        sent = {n: tensor for n, tensor in whole.tensors().items() if n not in names}
        return pushed_step(sent, whole.metadata)

    lacks, has = without(name), whole
    shards = [lacks, has] if lacking == 0 else [has, lacks]
    told = f"^shard {1 - lacking} has {name}, shard {lacking} does not"
    with pytest.raises(PushError, match=told):
        join_steps(shards)


@pytest.mark.parametrize(
    ("experts", "told"),
    [
        (np.zeros((7, 2, 4), np.uint8), r"is uint8\[2, 4\] in shard 1 and uint8\[2, 3\] in shard"),
        (np.zeros((7, 1, 3), np.int16), r"is int16\[1, 3\] in shard 1 and uint8\[2, 3\] in shard"),
    ],
)
def test_experts_of_other_shapes(whole: PushedStep, experts: NDArray[Any], told: str) -> None:
    with pytest.raises(PushError, match=f"routed_experts {told}"):
        join_steps([whole, replace(whole, routed_experts=experts)])


EXPERT_DTYPES = [np.uint8, np.int16, np.uint16, np.int32]


@pytest.mark.parametrize("other", EXPERT_DTYPES)
@pytest.mark.parametrize("own", EXPERT_DTYPES)
def test_expert_ids_of_other_dtypes_keep_their_values(
    whole: PushedStep, own: type[Any], other: type[Any]
) -> None:
    """Each rank takes the smallest dtype of its own ids."""
    ids = [np.full((7, 2, 3), np.iinfo(dtype).max, dtype) for dtype in (own, other)]
    ids[1][0] = np.iinfo(other).min
    joined = join_steps([replace(whole, routed_experts=one) for one in ids]).routed_experts
    assert joined is not None and joined.dtype.kind in "iu"
    expected = np.concatenate([one.astype(object) for one in ids])
    assert (joined.astype(object) == expected).all()


def test_widened_expert_ids_count_for_the_limit(
    whole: PushedStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftscope_probes.push.step_file.MAX_JOINED_BYTES", 1000)
    few = pushed_step(
        {n: whole.tensors()[n] for n in (*REQUIRED, "cu_seqlens", "routed_experts")}, {}
    )
    assert join_steps([few, few]).tokens == 14
    wide = replace(few, routed_experts=np.zeros((7, 2, 3), np.int32))
    with pytest.raises(PushError, match="4 shards have 1,052 bytes together"):
        join_steps([few, wide, few, few])


def named(step: PushedStep, environments: str, *index: int) -> PushedStep:
    extras = replace(step.extras, environment=np.array(index, np.int32))
    return replace(step, extras=extras, metadata={**step.metadata, "environments": environments})


def test_each_rank_lists_the_environments_that_it_saw(whole: PushedStep) -> None:
    shards = [
        named(whole, "math,code", 0, 1, 1),
        named(whole, "search, math", 1, 0, 1),
        named(whole, "code", 0, 0, 0),
    ]
    step = join_steps(shards)
    names = environment_names(step.metadata)
    assert names == ("math", "code", "search")
    assert step.extras.environment is not None
    assert [names[i] for i in step.extras.environment] == [
        *("math", "code", "code"),
        *("math", "search", "math"),
        *("code", "code", "code"),
    ]


def test_an_unlisted_environment_beside_listed_ones(whole: PushedStep) -> None:
    with pytest.raises(PushError, match="'environments' is absent in shard 1 and 'math,code'"):
        join_steps([named(whole, "math,code", 0, 1, 1), whole])


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"schema_version": "1", "model": "n"}, "'model' is 'n' in shard 2 and 'm' in shard 0"),
        ({"schema_version": "1"}, "'model' is absent in shard 2 and 'm' in shard 0"),
        ({"schema_version": "1", "model": "m", "top_p": "1"}, "'top_p' is '1' in shard 2 and abs"),
    ],
)
def test_metadata_that_differs_is_named(
    whole: PushedStep, metadata: dict[str, str], told: str
) -> None:
    with pytest.raises(PushError, match=told):
        join_steps([whole, whole, replace(whole, metadata=metadata)])


@pytest.mark.parametrize(
    ("limit", "most", "told"),
    [
        ("MAX_TOKENS", 20, "3 shards have 21 tokens together, accepted are 20"),
        ("MAX_SEQUENCES", 8, "3 shards have 9 sequences together, accepted are 8"),
        ("MAX_JOINED_BYTES", 1000, "3 shards have 1,.* bytes together, accepted are 1,000"),
    ],
)
def test_the_limits_hold_for_the_whole(
    whole: PushedStep, monkeypatch: pytest.MonkeyPatch, limit: str, most: int, told: str
) -> None:
    monkeypatch.setattr(f"driftscope_probes.push.step_file.{limit}", most)
    with pytest.raises(PushError, match=told):
        join_steps([whole] * 3)
