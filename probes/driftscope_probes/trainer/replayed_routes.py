"""A trainer's forward with given experts: each router computes its logits, the choice is another's.

In: a mixture of experts of transformers and expert ids. Out: the same model, its choice replaced
while the context lasts. The weights of the experts stay the trainer's own, as in router replay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from driftscope_probes.errors import TrainerError


@contextmanager
def replayed_routes(model: Any, routes: NDArray[np.int16]) -> Iterator[None]:
    """`routes`: [tokens, layers, used] of the one sequence that is scored. Raises TrainerError."""
    routers = [part for name, part in model.named_modules() if name.endswith(".mlp.gate")]
    if len(routers) != routes.shape[1]:
        raise TrainerError(
            f"the routes are of {routes.shape[1]} layers, the trainer's model routes in "
            f"{len(routers)}.",
            remedy="give both sides the same architecture.",
        )
    handles = [
        router.register_forward_hook(_forced(torch.from_numpy(routes[:, layer].astype(np.int64))))
        for layer, router in enumerate(routers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _forced(experts: Tensor) -> Any:
    """`experts`: [tokens, used]."""

    def hook(router: nn.Module, _: Any, output: Any) -> tuple[Tensor, Tensor, Tensor]:
        if not (isinstance(output, tuple) and len(output) == 3):
            raise _unsupported(router)
        logits, weights, chosen = output
        normalised = _normalises(router, logits, weights, chosen)
        if logits.shape[0] != experts.shape[0]:
            raise TrainerError(
                f"the routes are of {experts.shape[0]} tokens, the trainer reads "
                f"{logits.shape[0]}.",
                remedy="replay the routes of the sequences that are scored, one at a time.",
            )
        forced = experts.to(chosen.device)
        return logits, _weights(logits, forced, normalised).to(weights.dtype), forced

    return hook


def _normalises(router: nn.Module, logits: Tensor, weights: Tensor, chosen: Tensor) -> bool:
    """Whether the weights of the chosen experts add up to 1: its own choice shows it."""
    for normalised in (True, False):
        expected = _weights(logits, chosen, normalised).to(weights.dtype)
        if torch.equal(expected, weights):
            return normalised
    raise _unsupported(router)


def _weights(logits: Tensor, chosen: Tensor, normalised: bool) -> Tensor:
    """float32 [tokens, used], in the order of operations of transformers' TopKRouter."""
    found = torch.softmax(logits, dim=-1, dtype=torch.float32).gather(1, chosen)
    return found / found.sum(dim=-1, keepdim=True) if normalised else found


def _unsupported(router: nn.Module) -> TrainerError:
    return TrainerError(
        f"the weights of {type(router).__name__} are not a softmax of its logits.",
        remedy="leave the control out for this model.",
    )
