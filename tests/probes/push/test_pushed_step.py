import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from driftscope_probes.mismatch import compare
from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_probes.push.rules import PushError

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
        ({"behavior_version": np.zeros(7, np.int32)}, r"behavior_version has shape \[7\]"),
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


@pytest.mark.parametrize("place", [0, 1, 6])
def test_the_first_token_id_that_differs_is_named(tensors: Tensors, place: int) -> None:
    """Masked ones as well: 1 and 6 are."""
    tensors["rollout_token_ids"][place:] += 1
    sequence, within = (0, place) if place < 3 else (2, place - 3)
    told = f"the first at token {place} \\(sequence {sequence}, place {within}\\)"
    with pytest.raises(PushError, match=told):
        pushed_step(tensors, {})


def test_ids_of_one_side_only(tensors: Tensors) -> None:
    del tensors["token_ids"]
    with pytest.raises(PushError, match="no token_ids to check them against"):
        pushed_step(tensors, {})


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
