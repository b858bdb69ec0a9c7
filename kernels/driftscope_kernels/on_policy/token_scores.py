"""Log-probabilities of completions as the engine has them: the same tokens at the same positions.

In: a transformers model, token ids [B, L] with the prompt padded on its left and the completion on
its right, as TRL lays them out. Out: log-probability and entropy of each completion token, [B, C].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels import ops
from driftscope_kernels.options import TRANSFORMERS


class UnsupportedModelError(ValueError):
    """A model whose logits are more than lm_head(hidden states)."""


#: Settings by which some models scale or cap their logits; our head computes none of them.
HEAD_SETTINGS = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
)


@dataclass(frozen=True, slots=True)
class TokenScores:
    """[B, C] float32, nats; 0 where there is no token."""

    logprobs: Tensor
    entropies: Tensor


def check_model(model: Any) -> None:
    """Raises UnsupportedModelError with what prevents exactness."""
    config = model.config.get_text_config()
    found = [name for name in HEAD_SETTINGS if getattr(config, name, None) not in (None, 1.0)]
    if found:
        raise UnsupportedModelError(
            f"{type(model).__name__} sets {', '.join(found)} for its logits, which the invariant "
            "head does not compute; use a model whose logits are lm_head(hidden states)."
        )
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise UnsupportedModelError(
            f"the head of {type(model).__name__} has a bias, which the invariant head does not add."
        )


def from_position_zero(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Each row moved to the left by its padding: ids [B, L], and that padding [B].

    An engine has no padding, and the angle of a rotary position is in the bits of every key; what
    then stands on the right comes after every token that counts, so that no mask is needed.
    """
    padding = mask.long().argmax(dim=1)
    columns = torch.arange(ids.shape[1], device=ids.device) + padding[:, None]
    return ids.gather(1, columns % ids.shape[1]), padding


def completion_scores(
    model: Any, ids: Tensor, mask: Tensor, completion_length: int, temperature: float
) -> TokenScores:
    """ids, mask: int64 [B, L], the completion in the last `completion_length` columns."""
    moved, padding = from_position_zero(ids, mask)
    hidden = model.base_model(input_ids=moved, use_cache=False).last_hidden_state
    rows, places = mask[:, -completion_length:].nonzero(as_tuple=True)
    first = ids.shape[1] - completion_length
    # What a token was drawn from is the hidden state before it.
    before = places + first - padding[rows] - 1
    scores = ops.token_logprob(
        hidden[rows, before],
        model.get_output_embeddings().weight,
        ids[rows, places + first],
        temperature=temperature,
        entropy=True,
        options=TRANSFORMERS.logprob,
    )
    shape = (len(ids), completion_length)
    assert scores.entropy is not None
    return TokenScores(
        _placed(scores.logprob, shape, rows, places), _placed(scores.entropy, shape, rows, places)
    )


def _placed(values: Tensor, shape: tuple[int, int], rows: Tensor, places: Tensor) -> Tensor:
    return values.new_zeros(shape).index_put((rows, places), values)
