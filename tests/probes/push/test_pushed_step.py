import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from driftscope_probes.mismatch import compare
from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_probes.push.rules import PushError, environment_names

Tensors = dict[str, NDArray[Any]]


def limits(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def test_a_step_is_immutable(tensors: Tensors) -> None:
    step = pushed_step(tensors, {"model": "m"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.mask = np.ones(7, np.bool_)  # type: ignore[misc]
    for tensor in step.tensors().values():
        assert not tensor.flags.writeable
    assert step.sequence(2) == slice(3, 7)


def test_strange_values_are_kept_and_counted_by_the_comparison() -> None:
    strange = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 3.0, -1.0], np.float32)
    usual = np.full(7, -1.0, np.float32)
    sides = {"rollout_logprobs": strange, "trainer_logprobs": usual}
    step = pushed_step({**sides, "cu_seqlens": limits(0, 7)}, {})
    np.testing.assert_array_equal(step.rollout, strange)
    counted = compare(step.rollout, step.trainer, step.cu_seqlens, step.mask).hygiene
    assert (counted.rollout_nonfinite, counted.rollout_zero, counted.rollout_positive) == (3, 2, 1)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"mask": np.ones(6, np.uint8)}, r"mask has shape \[6\], the step has 7 tokens in 3"),
        ({"mask": np.array([1, 0, 1, 2, 1, 1, 0], np.uint8)}, "mask has the value 2 at 3"),
        ({"trainer_logprobs": np.zeros(8, np.float32)}, r"trainer_logprobs has shape \[8\]"),
        ({"behavior_version": np.zeros(6, np.int32)}, r"behavior_version has shape \[6\]"),
        ({"routed_experts": np.zeros((7, 2), np.uint8)}, r"routed_experts has shape \[7, 2\]"),
        ({"cu_seqlens": limits(0, 3, 2, 7)}, "cu_seqlens falls from 3 to 2 at 2"),
        ({"cu_seqlens": limits(1, 3, 3, 7)}, "does not run from 0"),
        ({"cu_seqlens": limits(0, 3, 3, 6)}, "does not run from 0 to the number of tokens, 7"),
        ({"cu_seqlens": limits(0, 3, 8, 7)}, r"cu_seqlens\[2\] is 8, outside 0 to 7"),
        ({"cu_seqlens": limits(0, 2**63 - 1, -2, 7)}, r"cu_seqlens\[1\] is 9223372036854775807"),
        ({"cu_seqlens": limits(0, -(2**63), 3, 7)}, r"cu_seqlens\[1\] is -9223372036854775808"),
    ],
)
def test_arrays_that_disagree(tensors: Tensors, changed: Tensors, told: str) -> None:
    with pytest.raises(PushError, match=told) as caught:
        pushed_step({**tensors, **changed}, {})
    assert caught.value.remedy


def test_sides_with_other_token_ids_are_a_step(tensors: Tensors) -> None:
    tensors["rollout_token_ids"][2:] += 1
    step = pushed_step(tensors, {})
    assert step.rollout_token_ids is not None and step.extras.token_ids is not None
    assert np.flatnonzero(step.rollout_token_ids != step.extras.token_ids)[0] == 2


@pytest.mark.parametrize("absent", ["token_ids", "rollout_token_ids"])
def test_ids_of_one_side_only(tensors: Tensors, absent: str) -> None:
    del tensors[absent]
    step = pushed_step(tensors, {})
    assert absent not in step.tensors()
    assert {"token_ids", "rollout_token_ids"} - {absent} <= set(step.tensors())


NAMED = {"environments": "math, code"}


@pytest.mark.parametrize(
    ("changed", "metadata", "told"),
    [
        ({"rank": [0, 1, -1]}, {}, "rank is -1 for sequence 2; accepted is 0 and above"),
        ({"replica": [-3, 1, -1]}, {}, "replica is -3 for sequence 0"),
        ({"cached_tokens": [0, -1, 0]}, {}, "cached_tokens is -1 for sequence 1"),
        ({"prompt_lengths": [9, 16, -50]}, {}, "prompt_lengths is -50 for sequence 2"),
        ({"environment": [0, -1, 0]}, {}, "environment is -1 for sequence 1"),
        ({"environment": [0, 1, 2]}, NAMED, "2 for sequence 2, .* lists 2: accepted is 0 to 1"),
        ({"environment": [0, 1, 0]}, {"environments": "math"}, "lists 1: accepted is 0 to 0"),
        ({"environment": [0, 0, 0]}, {"environments": " "}, "lists 0: accepted is none"),
        ({"cached_tokens": [9, 17, 0]}, {}, "cached_tokens is 17 for sequence 1, .* is 16"),
    ],
)
def test_labels_that_cannot_be_true(
    tensors: Tensors, changed: dict[str, list[int]], metadata: dict[str, str], told: str
) -> None:
    planted = {name: np.array(values, np.int32) for name, values in changed.items()}
    with pytest.raises(PushError, match=told) as caught:
        pushed_step({**tensors, **planted}, metadata)
    assert caught.value.remedy


def test_labels_at_their_limits(tensors: Tensors) -> None:
    tensors["cached_tokens"] = tensors["prompt_lengths"].copy()
    most = np.full(3, 2**31 - 1, np.int32)
    step = pushed_step({**tensors, "rank": most}, NAMED)
    assert step.extras.rank is not None and step.extras.rank.max() == 2**31 - 1
    del tensors["prompt_lengths"]  # nothing to hold the cached tokens against
    tensors["environment"] = np.full(3, 99, np.int32)  # nor the environments
    assert pushed_step(tensors, {}).extras.environment is not None


def test_the_names_of_environments() -> None:
    assert environment_names({}) is None
    assert environment_names({"environments": ""}) == ()
    assert environment_names({"environments": "math"}) == ("math",)
    assert environment_names({"environments": "math, a b ,code"}) == ("math", "a b", "code")


def test_without_a_mask_every_token_takes_part(tensors: Tensors) -> None:
    del tensors["mask"]
    step: PushedStep = pushed_step(tensors, {})
    assert step.mask.dtype == np.bool_ and step.mask.all()


def test_no_sequence_at_all() -> None:
    empty = np.zeros(0, np.float32)
    sides = {"rollout_logprobs": empty, "trainer_logprobs": empty}
    with pytest.raises(PushError, match="does not run from 0"):
        pushed_step({**sides, "cu_seqlens": limits(0)}, {})
    assert pushed_step({**sides, "cu_seqlens": limits(0, 0)}, {}).sequences == 1
