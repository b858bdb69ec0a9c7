"""Whether a model keeps packed sequences apart. In: a model. Out: nothing, or TrainerError.

Attention is masked at boundaries through position ids; recurrent layers (Mamba, linear attention)
may carry state across, and a model may ignore position ids altogether.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from driftscope_probes.errors import TrainerError

#: Lengths of the two sequences of the trial.
NEIGHBOUR, OBSERVED = 7, 9
#: Relative movement of the hidden states. Kept apart they stand still (a mixture's experts, which
#: get other row counts: 3e-7); with the boundary ignored they move by 66 to 124 % (tiny Llama and
#: Qwen3-MoE, SmolLM2, every dtype).
LEAK = 0.05


def check_packing(model: Any, decoder: nn.Module) -> None:
    """Change a packed sequence's neighbour and look whether its hidden states move."""
    with torch.random.fork_rng(), torch.no_grad():
        before, after = (_observed(model, decoder, first) for first in (1, 1 + NEIGHBOUR))
    moved = float((before - after).norm() / before.norm())
    if not moved < LEAK:
        raise TrainerError(
            f"{type(model).__name__} lets packed sequences see each other (hidden states move by "
            f"{moved:.0%} when only the neighbour changes).",
            remedy="set the trainer's batching to padded, or micro_batch to 1.",
        )


def _observed(model: Any, decoder: nn.Module, first: int) -> Tensor:
    """Hidden states of the second of two packed sequences; `first` chooses the neighbour."""
    torch.manual_seed(0)  # the same dropout in both passes
    total = NEIGHBOUR + OBSERVED
    tokens = torch.arange(total)
    tokens[:NEIGHBOUR] = torch.arange(first, first + NEIGHBOUR)
    positions = torch.cat([torch.arange(NEIGHBOUR), torch.arange(OBSERVED)])
    output = decoder(
        input_ids=(tokens % model.config.vocab_size)[None].to(model.device),
        position_ids=positions[None].to(model.device),
        use_cache=False,
    )
    hidden: Tensor = output.last_hidden_state[0, NEIGHBOUR:].double()
    return hidden
