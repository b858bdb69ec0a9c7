"""Which experts each token takes, seen at the routers while an engine reads a sequence.

In: a loaded mixture of experts, vLLM's or transformers'. Out: expert ids, [tokens, layers, used].
Eager mode only: a compiled model calls no hooks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from driftscope_probes.errors import EngineError

REMEDY = "leave the control out for this model."


class RouteRecorder:
    """Hooks on the routers of one model, which are there until `remove`."""

    def __init__(self, model: Any, used: int) -> None:
        """`used`: experts per token. Raises EngineError for a model without plain routers."""
        self._used = used
        self._gates = _gates(model)
        self._seen: dict[str, list[NDArray[np.int16]]] = {name: [] for name in self._gates}
        self._handles = [
            gate.register_forward_hook(self._hook(name)) for name, gate in self._gates.items()
        ]

    def _hook(self, name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            self._seen[name].append(_chosen(output, self._used).to(torch.int16).cpu().numpy())

        return hook

    def take(self, tokens: int) -> NDArray[np.int16]:
        """Of the sequence that was read since the last call. Raises EngineError."""
        layers = [
            np.concatenate(parts) if parts else np.zeros((0, self._used), np.int16)
            for parts in self._seen.values()
        ]
        for parts in self._seen.values():
            parts.clear()
        read = {len(layer) for layer in layers}
        if read != {tokens}:
            raise EngineError(
                f"the routers were seen to route {sorted(read)} tokens of {tokens}.",
                remedy="run the engine eagerly, one sequence at a time; else " + REMEDY,
            )
        return np.stack(layers, axis=1)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def experts_used(config: Any) -> int:
    """Per token. Raises EngineError for a model without experts."""
    used = getattr(config, "num_experts_per_tok", None)
    if not isinstance(used, int):
        raise EngineError("the engine's model has no experts.", remedy=REMEDY)
    return used


def _gates(model: Any) -> dict[str, nn.Module]:
    """By name, in the order of the layers."""
    found = {name: part for name, part in model.named_modules() if name.endswith(".mlp.gate")}
    biased = [
        name
        for name, gate in found.items()
        if getattr(gate, "e_score_correction_bias", None) is not None
    ]
    if not found or biased:
        why = "chooses experts by more than its router's logits" if biased else "has no mlp.gate"
        raise EngineError(f"the engine's model {why}.", remedy=REMEDY)
    return found


def _chosen(output: Any, used: int) -> Tensor:
    """transformers hands on the choice beside the logits; vLLM the logits alone, [tokens, all]."""
    last = output[-1] if isinstance(output, tuple) else output
    if isinstance(last, Tensor) and not last.is_floating_point():
        return last
    logits = output[0] if isinstance(output, tuple) else output
    return torch.topk(logits.float(), used, dim=-1).indices
