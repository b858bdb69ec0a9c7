"""The language-model head: the linear map from hidden states to logits, and proof that it is one.

In: a causal language model. Out: its head's weight and bias, or TrainerError where the model does
more between hidden states and logits than a matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from driftscope_probes.errors import TrainerError

#: Enough rows that no BLAS takes its path for a single row, few enough to cost nothing.
CHECK_TOKENS = 8


@dataclass(frozen=True, slots=True)
class LanguageModelHead:
    weight: Tensor  # [vocabulary, hidden size]; may be the embedding's own
    bias: Tensor | None  # [vocabulary]


def find_head(model: Any, decoder: nn.Module) -> LanguageModelHead:
    """The head, checked: on given hidden states it has the very bits of the model's own logits.

    Soft-capping, scaling or a multiplier between head and logits would otherwise be lost
    silently, since log-probabilities are computed from hidden states and this weight alone.
    """
    linear = model.get_output_embeddings()
    if not isinstance(linear, nn.Linear) or decoder is model:
        raise _unsupported(model)
    head = LanguageModelHead(linear.weight, linear.bias)
    generator = torch.Generator().manual_seed(0)
    shape = (1, CHECK_TOKENS, head.weight.shape[1])
    hidden = torch.randn(shape, generator=generator).to(head.weight)
    with torch.no_grad():
        ours = F.linear(hidden, head.weight, head.bias)
        theirs = _own_logits(model, decoder, hidden)
    if not torch.allclose(ours, theirs, rtol=0.0, atol=0.0, equal_nan=True):
        raise _unsupported(model)
    return head


def _own_logits(model: Any, decoder: nn.Module, hidden: Tensor) -> Tensor:
    """The model's logits for these hidden states, substituted for its own.

    Its own may have overflowed in FP16, which is to be measured, not refused.
    """

    def replace(_: nn.Module, __: Any, output: Any) -> Any:
        output.last_hidden_state = hidden
        return output

    handle = decoder.register_forward_hook(replace)
    tokens = torch.zeros((1, CHECK_TOKENS), dtype=torch.int64, device=hidden.device)
    try:
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits
    finally:
        handle.remove()
    return logits


def _unsupported(model: Any) -> TrainerError:
    return TrainerError(
        f"{type(model).__name__} does more than one matrix product between hidden states and "
        "logits (soft-capping, scaling or a head of its own).",
        remedy="use a model whose logits are lm_head(hidden states), as in Llama, Qwen or Mistral.",
    )
