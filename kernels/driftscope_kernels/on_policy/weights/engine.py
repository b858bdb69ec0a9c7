"""What a running engine computes with, under the trainer's names.

In: a model of vLLM's, in one process. Out: the digest of a tensor that the trainer has, read from
the packed copy that is multiplied with where there is one: of lm_head its own, of q_proj the rows
in qkv_proj. None where nothing plain is to be read: weights that vLLM's own kernels packed, and
quantised ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from driftscope_kernels.on_policy.weights.row_sums import RowSums, of_packed, of_tensor
from driftscope_kernels.vllm_plugin.linear import KeptLinear, PackedLinear

#: Where a model of vLLM's does not say itself what it merges.
USUAL_MERGES: Final[Mapping[str, Sequence[str]]] = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
#: As checkpoints name experts, one by one, and as transformers 5 does, all of a layer in one.
ONE_EXPERT = re.compile(r"(.+\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj)\.weight")
ALL_EXPERTS = re.compile(r"(.+\.experts)\.(gate_up_proj|down_proj)(?:\.weight)?")


@dataclass(frozen=True, slots=True)
class Rows:
    """Of a tensor of the engine's, those that are one of the trainer's."""

    key: str  # the engine's tensor
    module: Any
    leaf: str  # "weight", "bias" …
    first: int = 0
    end: int | None = None  # None: as many as the trainer has, since a vocabulary is filled up


@dataclass(frozen=True, slots=True)
class Experts:
    """w13_weight [experts, gate and up, hidden] or w2_weight [experts, hidden, inner]."""

    key: str
    module: Any
    leaf: str
    parts: tuple[str, ...]  # gate, up or down
    expert: int | None = None  # None: all


Place = Rows | Experts


class EngineWeights:
    """Places are looked up once; digests are worked out anew by every `look`."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modules = dict(model.named_modules())
        self._merged = {
            part: (merged, list(parts).index(part))
            for merged, parts in (
                getattr(model, "packed_modules_mapping", None) or USUAL_MERGES
            ).items()
            for part in parts
        }
        self._places: dict[str, Place | None] = {}
        self._sums: dict[str, RowSums | None] = {}

    def look(self) -> None:
        """What was read before counts no longer."""
        self._sums = {}

    def dtype(self, name: str) -> torch.dtype | None:
        """Of the tensor that the trainer calls `name`; None where it cannot be read."""
        sums = self._sums_of(name)
        return None if sums is None else sums.dtype

    def digest(self, name: str, rows: int) -> int | None:
        """`rows`: of the trainer's tensor, over its last dimension."""
        sums, place = self._sums_of(name), self.place(name)
        if sums is None or place is None:
            return None
        if isinstance(place, Experts):
            return _of_experts(sums, place).digest()
        end = place.first + rows if place.end is None else place.end
        return sums.digest(place.first, end) if end - place.first == rows else None

    def place(self, name: str) -> Place | None:
        if name not in self._places:
            self._places[name] = self._find(name)
        return self._places[name]

    def _find(self, name: str) -> Place | None:
        experts = self._find_experts(name)
        if experts is not None:
            return experts
        path, _, leaf = name.rpartition(".")
        module = self._modules.get(path)
        if module is not None and isinstance(getattr(module, leaf, None), Tensor):
            return Rows(name, module, leaf)
        above, _, last = path.rpartition(".")
        if last not in self._merged:
            return None
        merged, index = self._merged[last]
        module = self._modules.get(f"{above}.{merged}" if above else merged)
        sizes = getattr(module, "output_sizes", None)
        if module is None or sizes is None or getattr(module, leaf, None) is None:
            return None
        first = sum(sizes[:index])
        return Rows(f"{above}.{merged}.{leaf}", module, leaf, first, first + sizes[index])

    def _find_experts(self, name: str) -> Experts | None:
        one, every = ONE_EXPERT.fullmatch(name), ALL_EXPERTS.fullmatch(name)
        if one is None and every is None:
            return None
        path, part = (one[1], one[3]) if one is not None else (every[1], every[2])  # type: ignore[index]
        module = self._modules.get(path)
        holder = getattr(module, "routed_experts", module)
        leaf = "w2_weight" if part == "down_proj" else "w13_weight"
        if holder is None or not isinstance(getattr(holder, leaf, None), Tensor):
            return None
        parts = tuple(part.removesuffix("_proj").split("_"))
        number = None if one is None else int(one[2])
        return Experts(f"{path}.{leaf}", holder, leaf, parts, number)

    def _sums_of(self, name: str) -> RowSums | None:
        place = self.place(name)
        if place is None:
            return None
        if place.key not in self._sums:
            self._sums[place.key] = _read(place.module, place.leaf)
        return self._sums[place.key]


def _read(module: Any, leaf: str) -> RowSums | None:
    """Of the whole tensor, as the next product will have it."""
    tensor: Tensor = getattr(module, leaf)
    if leaf in ("w13_weight", "w2_weight") and not _plain_experts(module):
        return None
    computed = getattr(module, "cpu_linear", None) if leaf == "weight" else None
    if isinstance(computed, KeptLinear):
        packed = computed.held(tensor)
        return of_tensor(tensor) if packed is None else of_packed(packed)
    if isinstance(computed, PackedLinear) and not tensor.numel():
        return of_packed(computed)
    readable = tensor.numel() > 0 and tensor.is_floating_point() and tensor.element_size() in (2, 4)
    return of_tensor(tensor) if readable else None


def _plain_experts(module: Any) -> bool:
    """Whether the kernel reads them as they were loaded: ours does, vLLM's on the CPU packs."""
    kernel = getattr(getattr(module, "quant_method", None), "moe_kernel", None)
    used = getattr(getattr(kernel, "impl", None), "fused_experts", None)
    prepare = getattr(type(used), "process_weights_after_loading", None)
    return used is None or prepare is None or "driftscope" in getattr(prepare, "__module__", "")


def _of_experts(sums: RowSums, place: Experts) -> RowSums:
    count = getattr(place.module, place.leaf).shape[0]
    by_expert = sums.sums.reshape(count, -1)
    if place.leaf == "w13_weight":
        padded = by_expert.shape[1] // 2
        settings = getattr(place.module, "moe_config", None)
        # vLLM fills up with zeros what its kernel wants in multiples of 32.
        width = getattr(settings, "intermediate_size_per_partition", padded)
        starts = {"gate": 0, "up": padded}
        by_expert = np.concatenate(
            [by_expert[:, starts[part] : starts[part] + width] for part in place.parts], axis=1
        )
    if place.expert is not None:
        by_expert = by_expert[place.expert]
    return replace(sums, sums=by_expert.reshape(-1))
