"""Completions scored as an engine has them: from position zero, whatever stands beside them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from driftscope_kernels.invariant_mode import invariant_mode
from driftscope_kernels.on_policy.token_scores import (
    UnsupportedModelError,
    check_model,
    completion_scores,
    from_position_zero,
)

SIZES: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.2,
}
COMPLETION = 5


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES)).bfloat16()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of 3, 1 and 6 tokens on the left of completions of 5, 2 and 4."""
    torch.manual_seed(1)
    ids, mask = torch.randint(1, 48, (3, 6 + COMPLETION)), torch.ones(3, 6 + COMPLETION).long()
    for row, (prompt, completion) in enumerate(((3, 5), (1, 2), (6, 4))):
        mask[row, : 6 - prompt] = 0
        mask[row, 6 + completion :] = 0
    return ids * mask, mask


def test_rows_move_to_the_left_by_their_padding() -> None:
    ids, mask = batch()
    moved, padding = from_position_zero(ids, mask)
    assert padding.tolist() == [3, 5, 0]
    for row in range(3):
        length = int(mask[row].sum())
        assert torch.equal(moved[row, :length], ids[row][mask[row] == 1])


def test_a_row_scores_the_same_alone_unpadded_and_in_the_batch(model: LlamaForCausalLM) -> None:
    ids, mask = batch()
    with torch.no_grad(), invariant_mode():
        together = completion_scores(model, ids, mask, COMPLETION, 0.7)
        for row in range(3):
            own = ids[row : row + 1, mask[row] == 1]
            count = int(mask[row, -COMPLETION:].sum())
            alone = completion_scores(model, own, torch.ones_like(own), count, 0.7)
            assert torch.equal(together.logprobs[row, :count], alone.logprobs[0])
            assert torch.equal(together.entropies[row, :count], alone.entropies[0])
            assert not together.logprobs[row, count:].any()


def test_they_are_the_log_probabilities_of_a_plain_forward(model: LlamaForCausalLM) -> None:
    ids, mask = batch()
    wide = LlamaForCausalLM(model.config).double()
    wide.load_state_dict(model.state_dict())
    with torch.no_grad():
        with invariant_mode():
            found = completion_scores(model, ids, mask, COMPLETION, 1.0).logprobs
        moved, padding = from_position_zero(ids, mask)
        logprobs = wide(input_ids=moved).logits.log_softmax(-1)
    for row, place in mask[:, -COMPLETION:].nonzero().tolist():
        column = 6 + place - int(padding[row])
        expected = logprobs[row, column - 1, moved[row, column]]
        assert abs(float(found[row, place] - expected)) < 0.2  # bfloat16's rounding


def test_what_the_head_does_not_compute_is_refused(model: LlamaForCausalLM) -> None:
    check_model(model)
    capped = LlamaForCausalLM(LlamaConfig(**SIZES))
    capped.config.final_logit_softcapping = 30.0
    with pytest.raises(UnsupportedModelError, match="final_logit_softcapping"):
        check_model(capped)
