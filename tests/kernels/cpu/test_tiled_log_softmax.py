"""The sampler's log-probabilities in the order in which `ops.token_logprob` adds them up."""

import pytest
import torch
from torch import Tensor

from driftscope_kernels import ops
from driftscope_kernels.cpu.backend import instruction_sets, operators
from driftscope_kernels.cpu.tiled_log_softmax import portable, tiled_log_softmax
from driftscope_kernels.options import VOCABULARY_TILE

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def head(vocabulary: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(vocabulary)
    hidden = torch.randn(5, 48, generator=generator).to(dtype)
    return hidden, torch.randn(vocabulary, 48, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocabulary", [3, 512, 1300])
def test_every_token_has_the_bits_of_the_op(vocabulary: int, dtype: torch.dtype) -> None:
    hidden, weight = head(vocabulary, dtype)
    logits = ops.linear(hidden, weight)
    for kind in (logits, logits.float()):  # vLLM casts before it samples
        found = tiled_log_softmax(kind)
        assert found.dtype == torch.float32 and found.is_contiguous()
        for token in range(0, vocabulary, max(1, vocabulary // 37)):
            targets = torch.full((5,), token)
            expected = ops.token_logprob(hidden, weight, targets).logprob
            assert torch.equal(found[:, token], expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_portable_way_has_the_same_bits(dtype: torch.dtype) -> None:
    if operators() is None:
        pytest.skip("there is no compiler, the portable way is the only one")
    logits = ops.linear(*head(1300, dtype))
    masked = logits.clone()
    masked[:, :600] = float("-inf")  # a whole tile, as top-k leaves it
    masked[1] = float("-inf")
    masked[2, 7] = float("nan")
    for case in (logits, masked, logits[:, 3:1100], logits[:0]):
        found = tiled_log_softmax(case)
        torch.testing.assert_close(found, portable(case), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_instruction_set_has_the_same_bits(dtype: torch.dtype) -> None:
    built = operators()
    if built is None:
        pytest.skip("there is no compiler, the portable way is the only one")
    logits = ops.linear(*head(1300, dtype))
    expected = portable(logits)
    for isa in instruction_sets()[:-1]:  # the last is the portable way
        assert torch.equal(built.tiled_log_softmax.default(logits, VOCABULARY_TILE, isa), expected)


def test_a_tile_that_is_no_multiple_of_the_lanes_is_refused() -> None:
    built = operators()
    if built is None:
        pytest.skip("there is no compiler, the portable way is the only one")
    with pytest.raises(ValueError, match="multiple of 16"):
        built.tiled_log_softmax.default(torch.zeros(1, 40), 20, "")


def test_the_argument_stays_as_it_was() -> None:
    logits = torch.randn(2, 700)
    before = logits.clone()
    tiled_log_softmax(logits)
    assert torch.equal(logits, before)


def test_a_row_does_not_depend_on_the_others() -> None:
    logits = torch.randn(9, 1300)
    whole = tiled_log_softmax(logits)
    assert all(
        torch.equal(tiled_log_softmax(logits[i : i + 1]), whole[i : i + 1]) for i in range(9)
    )
