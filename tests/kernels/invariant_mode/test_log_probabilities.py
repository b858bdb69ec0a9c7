"""A sequence has the same log-probabilities alone, padded on either side, packed, in any batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels import ops
from driftscope_kernels.invariant_mode import invariant_mode

FAMILIES = ("llama", "qwen3", "qwen3_moe")
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
LAYOUTS = [(kind, count) for kind in ("right", "left", "packed") for count in (2, 4, 8)]

Build = Callable[..., Any]
Lay = Callable[..., list[Any]]


@torch.no_grad()
def log_probabilities(model: Any, layouts: list[Any]) -> Tensor:
    """[tokens, vocabulary] of all sequences, one after another."""
    parts = []
    for one in layouts:
        logits = model(
            input_ids=one.input_ids,
            attention_mask=one.attention_mask,
            position_ids=one.position_ids,
            use_cache=False,
        ).logits.flatten(0, 1)
        parts.append(torch.log_softmax(logits[one.rows].float(), -1))
    return torch.cat(parts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_layout_has_the_bits_of_one_sequence_alone(
    build: Build, lay: Lay, family: str, dtype: torch.dtype
) -> None:
    model = build(family, dtype)
    with invariant_mode() as mode:
        alone = log_probabilities(model, lay())
        for kind, count in LAYOUTS:
            assert torch.equal(log_probabilities(model, lay(kind, count)), alone), (kind, count)
    assert mode.coverage().stock == {}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_stock_transformers_differs(
    build: Build, lay: Lay, family: str, dtype: torch.dtype
) -> None:
    """The positive control: without the mode the comparison above fails."""
    model = build(family, dtype)
    alone = log_probabilities(model, lay())
    assert not all(
        torch.equal(log_probabilities(model, lay(kind, count)), alone) for kind, count in LAYOUTS
    )


def test_two_threads_give_the_bits_of_one(build: Build, lay: Lay) -> None:
    model = build("qwen3", torch.float32)
    with invariant_mode():
        one = log_probabilities(model, lay("right", 8))
        torch.set_num_threads(2)
        assert torch.equal(log_probabilities(model, lay("right", 8)), one)


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_stay_close_to_stock(build: Build, lay: Lay, dtype: torch.dtype) -> None:
    model = build("qwen3_moe" if dtype == torch.float32 else "llama", dtype)
    stock = log_probabilities(model, lay())
    with invariant_mode():
        ours = log_probabilities(model, lay())
    # Two layers of random weights; a wrong op gives differences of the order of 1.
    assert (ours - stock).abs().max() < 40 * torch.finfo(dtype).eps


def test_eager_attention_is_invariant_where_nothing_moves_the_keys(build: Build, lay: Lay) -> None:
    """Padding on the right; on the left the sums of a masked softmax begin at other places."""
    model = build("llama", torch.bfloat16, attn_implementation="eager")
    with invariant_mode():
        alone = log_probabilities(model, lay())
        assert torch.equal(log_probabilities(model, lay("right", 4)), alone)


def test_the_fused_head_is_invariant(build: Build, lay: Lay, sequences: list[Tensor]) -> None:
    model = build("llama", torch.bfloat16)
    targets = torch.cat(sequences)

    def scores(layouts: list[Any]) -> Tensor:
        hidden = [
            model.get_decoder()(
                input_ids=one.input_ids,
                attention_mask=one.attention_mask,
                position_ids=one.position_ids,
                use_cache=False,
            ).last_hidden_state.flatten(0, 1)[one.rows]
            for one in layouts
        ]
        return ops.token_logprob(torch.cat(hidden), model.lm_head.weight, targets).logprob

    with invariant_mode():
        assert torch.equal(scores(lay("left", 8)), scores(lay()))
