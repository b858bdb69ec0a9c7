from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from driftscope_kernels.contract import bounds
from driftscope_kernels.options import VOCABULARY_TILE, LogprobOptions
from driftscope_kernels.reference.linear import linear
from driftscope_kernels.reference.softmax import log_softmax
from driftscope_kernels.reference.token_logprob import TokenLogprobs, token_logprob

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OPTIONS = (LogprobOptions("rounded"), LogprobOptions("float32"))
# One tile, a full one, one and a bit, several.
VOCABULARIES = (7, VOCABULARY_TILE, VOCABULARY_TILE + 1, 3 * VOCABULARY_TILE - 100)


def case(vocabulary: int, dtype: torch.dtype, rows: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(vocabulary)
    hidden = torch.randn(rows, 16, generator=generator).to(dtype)
    weight = torch.randn(vocabulary, 16, generator=generator).to(dtype)
    return hidden, weight, torch.randint(0, vocabulary, (rows,), generator=generator)


def run(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    top_k: int = 0,
    options: LogprobOptions = OPTIONS[0],
) -> TokenLogprobs:
    return token_logprob(
        hidden, weight, targets, temperature=temperature, top_k=top_k, options=options
    )


@pytest.mark.parametrize(
    ("vocabulary", "dtype", "options", "temperature"),
    product(VOCABULARIES, DTYPES, OPTIONS, (1.0, 0.3)),
)
def test_within_its_bound(
    vocabulary: int, dtype: torch.dtype, options: LogprobOptions, temperature: float
) -> None:
    hidden, weight, targets = case(vocabulary, dtype)
    got = run(hidden, weight, targets, temperature, options=options)
    logits = hidden.double() @ weight.double().T / temperature
    exact = torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]
    bound = bounds.token_logprob(hidden, weight, targets, temperature)
    assert got.logprob.dtype == torch.float32
    assert ((got.logprob.double() - exact).abs() <= bound).all()


@pytest.mark.parametrize(("vocabulary", "dtype"), product(VOCABULARIES, DTYPES))
def test_entropy_and_top_are_those_of_the_logits(vocabulary: int, dtype: torch.dtype) -> None:
    hidden, weight, targets = case(vocabulary, dtype)
    got = run(hidden, weight, targets, top_k=5)
    logp = torch.log_softmax(linear(hidden, weight).double(), -1)
    torch.testing.assert_close(
        got.entropy.double(), -(logp.exp() * logp).sum(-1), rtol=1e-5, atol=1e-5
    )
    order = torch.sort(logp, dim=-1, descending=True, stable=True)
    assert torch.equal(got.top_ids, order.indices[:, :5])
    torch.testing.assert_close(got.top_logprobs.double(), order.values[:, :5], rtol=0, atol=1e-5)


def test_one_tile_has_the_bits_of_log_softmax(same_bits: Callable[..., None]) -> None:
    hidden, weight, targets = case(VOCABULARY_TILE, torch.float32)
    whole = log_softmax(linear(hidden, weight), -1)
    same_bits(run(hidden, weight, targets).logprob, whole.gather(1, targets[:, None])[:, 0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_in_every_batch(
    dtype: torch.dtype, same_bits: Callable[..., None]
) -> None:
    hidden, weight, targets = case(VOCABULARIES[-1], dtype)
    whole = run(hidden, weight, targets, top_k=3)
    reverse = run(hidden.flip(0), weight, targets.flip(0), top_k=3)
    for row in range(len(hidden)):
        alone = run(hidden[row : row + 1], weight, targets[row : row + 1], top_k=3)
        for one, all_rows, reversed_rows in zip(alone, whole, reverse, strict=True):
            same_bits(one, all_rows[row : row + 1])
            same_bits(one, reversed_rows.flip(0)[row : row + 1])


def test_equal_logits_rank_by_id_across_tiles() -> None:
    weight = torch.zeros(2 * VOCABULARY_TILE, 1)
    weight[[3, 700, 40, 900]] = 1.0
    got = run(torch.ones(1, 1), weight, torch.tensor([3]), top_k=5)
    assert got.top_ids.tolist() == [[3, 40, 700, 900, 0]]


def test_tokens_that_are_ruled_out_have_no_probability() -> None:
    """Whole tiles of −∞, first and last, as masks of a vocabulary leave them."""
    weight = torch.full((3 * VOCABULARY_TILE, 1), -float("inf"))
    weight[VOCABULARY_TILE : VOCABULARY_TILE + 4] = 2.0
    targets = torch.tensor([0, VOCABULARY_TILE])
    got = run(torch.ones(2, 1), weight, targets)
    assert got.logprob[0] == -float("inf")
    quarter = torch.log(torch.tensor(0.25)).item()
    assert got.logprob[1].item() == pytest.approx(quarter) and got.entropy[1].item() == (
        pytest.approx(-quarter)
    )


def test_rows_with_nan_or_nothing_but_minus_infinity_are_nan() -> None:
    weight = torch.full((600, 2), 1.0)
    hidden = torch.tensor([[float("nan"), 1], [-float("inf"), 1], [float("inf"), 1], [1, 1]])
    got = run(hidden, weight, torch.zeros(4, dtype=torch.int64))
    assert got.logprob.isnan().tolist() == [True, True, True, False]


def test_no_rows() -> None:
    hidden, weight, targets = case(600, torch.float32)
    got = run(hidden[:0], weight, targets[:0], top_k=2)
    assert got.logprob.shape == (0,) and got.top_ids.shape == (0, 2)
