"""Low rank: an adapter as LoRA has it, merged into weights or kept beside them.

In: a displacement of weights. Out: its best approximation of a low rank on the attention's
matrices, and a model with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from driftscope_probes.diagnosis.drill.updates import Displacement

RANK = 8
TARGETS = ("q_proj", "v_proj", "o_proj")


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    up: Tensor  # float32 [out, rank]
    down: Tensor  # float32 [rank, in]


Adapter = Mapping[str, Factors]  # by the module's name


def adapter_of(difference: Displacement) -> Adapter:
    """The largest singular directions of what training changed."""
    adapter: dict[str, Factors] = {}
    for name, moved in difference.items():
        module = name.removesuffix(".weight")
        if not module.endswith(TARGETS):
            continue
        left, singular, right = torch.linalg.svd(moved, full_matrices=False)
        root = singular[:RANK].sqrt()
        adapter[module] = Factors(left[:, :RANK] * root, root[:, None] * right[:RANK])
    return adapter


def apply_adapter(model: Any, adapter: Adapter, by: float, store: torch.dtype | None = None) -> Any:
    """The model itself with the adapter merged: the sum is rounded to `store`, the dtype in which
    the weights are kept (None: the one they are computed in)."""
    with torch.no_grad():
        for name, factors in adapter.items():
            weight = model.get_submodule(name).weight
            merged = weight.float() + by * (factors.up @ factors.down)
            weight.copy_(merged.to(store or weight.dtype))
    return model


def attach_adapter(model: Any, adapter: Adapter, by: float) -> Any:
    """The model itself with the adapter beside its weights, computed in the model's dtype."""
    for name, factors in adapter.items():
        module = model.get_submodule(name)
        up, down = (part.to(module.weight.dtype) for part in (factors.up, by * factors.down))
        module.register_forward_hook(_Beside(up, down))
    return model


@dataclass(frozen=True, slots=True, eq=False)
class _Beside:
    up: Tensor
    down: Tensor

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + (inputs[0] @ self.down.t()) @ self.up.t()
