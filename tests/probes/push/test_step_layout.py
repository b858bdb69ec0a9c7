"""Tensors that do not fit together, named by the first that differs, from the header alone."""

from math import prod

import pytest

from driftscope_probes.push.rules import MAX_SEQUENCES, MAX_TOKENS, PushError
from driftscope_probes.push.safetensors_step import StepLayout, StoredTensor, step_layout


def layout(**shapes: list[int]) -> StepLayout:
    return step_layout({n: StoredTensor(n, "F32", tuple(s), 0, 0) for n, s in shapes.items()})


def both(*shape: int) -> dict[str, list[int]]:
    return {"rollout_logprobs": [*shape], "trainer_logprobs": [*shape]}


def test_packed_and_padded() -> None:
    packed = layout(**both(5), cu_seqlens=[4], mask=[5], behavior_version=[3])
    assert (packed.padded, packed.sequences) == (False, 3)
    padded = layout(**both(3, 5), mask=[3, 5], routed_experts=[3, 5, 2, 8])
    assert (padded.padded, padded.sequences) == (True, 3)


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ({}, "there is no rollout_logprobs"),
        ({"rollout_logprobs": [5]}, "there is no trainer_logprobs"),
        (both(5), "there is no cu_seqlens"),
        (both(3, 5), "there is no mask"),
        (both(), r"rollout_logprobs has shape \[\]"),
        (both(1, 2, 3), r"rollout_logprobs has shape \[1, 2, 3\]"),
        ({**both(3, 5), "mask": [3, 5], "cu_seqlens": [4]}, "there is a cu_seqlens as well"),
        ({**both(5), "cu_seqlens": [2], "mask": [4]}, r"mask has shape \[4\]; .* needs \[5\]"),
        ({**both(5), "cu_seqlens": [2], "mask": [5, 2]}, r"mask has shape \[5, 2\]"),
        ({**both(5), "cu_seqlens": [2, 2]}, r"cu_seqlens has shape \[2, 2\]; .* needs \[4\]"),
        ({**both(5), "cu_seqlens": [0]}, r"cu_seqlens has shape \[0\]; .* needs \[1\]"),
        (
            {"rollout_logprobs": [5], "trainer_logprobs": [4], "cu_seqlens": [2]},
            r"trainer_logprobs has shape \[4\]",
        ),
        ({**both(5), "cu_seqlens": [2], "behavior_version": [2]}, r"needs \[1\]"),
        ({**both(5), "cu_seqlens": [2], "routed_experts": [5, 8]}, r"needs \[5, layers, k\]"),
        ({**both(2, 5), "mask": [5, 2]}, r"mask has shape \[5, 2\]; .* needs \[2, 5\]"),
        ({**both(MAX_TOKENS + 1), "cu_seqlens": [2]}, "tokens, accepted are 33,554,432"),
        ({**both(5), "cu_seqlens": [MAX_SEQUENCES + 2]}, "sequences, accepted are 1,048,576"),
    ],
)
def test_what_does_not_fit(shapes: dict[str, list[int]], told: str) -> None:
    with pytest.raises(PushError, match=told) as caught:
        layout(**shapes)
    assert caught.value.remedy


def test_padding_counts_towards_the_limit() -> None:
    shape = (2**13, 2**13)
    assert prod(shape) > MAX_TOKENS
    with pytest.raises(PushError, match="accepted are 33,554,432"):
        layout(**both(*shape), mask=[*shape])
