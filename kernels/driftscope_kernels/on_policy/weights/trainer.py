"""The trainer's weights under the names that TRL sends them by, in the engine's dtypes.

In: a transformers model, with or without PEFT's adapters. Out: TrainerDigests. PEFT's merge and
unmerge round, so that merged weights can be read only while TRL has them merged: `MergedWeights`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol

import torch
from torch import Tensor

from driftscope_kernels.on_policy.weights.row_sums import of_tensor

HEAD = "lm_head.weight"
#: Numbers that are rounded at once: 256 KiB of float32 stay in a cache.
PART = 1 << 16


@dataclass(frozen=True, slots=True)
class TrainerDigests:
    by_name: dict[str, int]  # those that the engine shows
    rows: dict[str, int]
    unseen: tuple[str, ...]
    rounded: bool  # some weight lost bits on its way to the engine's dtype
    tied: str | None  # the embedding that lm_head shares, where it does


class Dtypes(Protocol):
    def dtype(self, name: str) -> torch.dtype | None: ...


def named_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """As trl/generation/vllm_generation.py names them, in one process."""
    peft = has_adapters(model)
    for name, parameter in model.named_parameters():
        if peft:
            name = name.removeprefix("base_model.model.").replace(".base_layer", "")
            if model.prefix in name or "original_module" in name:
                continue
            name = name.replace("modules_to_save.default.", "")
        yield name.replace("_checkpoint_wrapped_module.", ""), parameter.data


def has_adapters(model: Any) -> bool:
    return hasattr(model, "merge_adapter") and hasattr(model, "unmerge_adapter")


def digests_of(model: Any, engine: Dtypes) -> TrainerDigests:
    by_name, rows, unseen, rounded = dict[str, int](), dict[str, int](), list[str](), False
    for name, tensor in named_weights(model):
        dtype = engine.dtype(name)
        if dtype is None:
            unseen.append(name)
            continue
        rounded = rounded or (tensor.dtype != dtype and _loses(tensor, dtype))
        sums = of_tensor(tensor, dtype)
        by_name[name], rows[name] = sums.digest(), len(sums.sums)
    tied = _tied(model)
    if tied in by_name and engine.dtype(HEAD) is not None:
        by_name[HEAD], rows[HEAD] = by_name[tied], rows[tied]
    return TrainerDigests(by_name, rows, tuple(unseen), rounded, tied)


def _loses(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Looks no further than the first part that does."""
    flat = tensor.reshape(-1)
    parts = (flat[first : first + PART] for first in range(0, len(flat), PART))
    return any(not torch.equal(part, part.to(dtype).to(part.dtype)) for part in parts)


def _tied(model: Any) -> str | None:
    """Name of the weight that is embedding and head at once."""
    shared = getattr(model.get_output_embeddings(), "weight", None)
    if shared is None or shared is not model.get_input_embeddings().weight:
        return None
    found = (
        name for name, weight in named_weights(model) if weight.data_ptr() == shared.data_ptr()
    )
    name = next(found, None)
    return None if name == HEAD else name


class MergedWeights:
    """Digests of PEFT's merged weights and of the base model's, as of the latest sync."""

    def __init__(self, model: Any, engine: Dtypes) -> None:
        self.merged: TrainerDigests | None = None
        self.base: TrainerDigests | None = None
        self._model, self._engine = model, engine
        model.merge_adapter = self._before(model.merge_adapter, "base")
        model.unmerge_adapter = self._before(model.unmerge_adapter, "merged")

    def _before(self, original: Callable[..., Any], field: str) -> Callable[..., Any]:
        @wraps(original)
        def call(*arguments: Any, **named: Any) -> Any:
            setattr(self, field, digests_of(self._model, self._engine))
            return original(*arguments, **named)

        return call
