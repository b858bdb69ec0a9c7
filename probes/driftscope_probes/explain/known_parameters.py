"""What the engine's ops compute with, without reading a packed weight twice.

In: both sides, what alignment found. Out: parameters of a site.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import Parameters
from driftscope_probes.explain.report import Alignment
from driftscope_probes.explain.sides.base import Side
from driftscope_probes.explain.sites import Kind, Site

#: Kinds whose weights an engine may hold packed, so that reading them takes a pass through them.
PACKED: Final[frozenset[Kind]] = frozenset({"linear", "router", "experts", "embedding"})


class KnownParameters:
    """Weights that alignment found equal are the trainer's, in the engine's dtype."""

    def __init__(self, engine: Side, trainer: Side, alignment: Alignment) -> None:
        self._engine, self._trainer = engine, trainer
        unequal = [one.tensor.rpartition(".")[0] for one in alignment.weights]
        unread = [words.partition(" ")[0] for words in alignment.weights_unknown]
        self._unknown = frozenset([*unequal, *unread])

    def of_engine(self, site: Site) -> Parameters | None:
        if site.kind not in PACKED or site.key in self._unknown:
            return self._engine.parameters(site)
        theirs = self._trainer.parameters(site)
        return None if theirs is None else _cast(theirs, self._engine.dtype)


def _cast(parameters: Parameters, dtype: torch.dtype) -> Parameters:
    changed: dict[str, Any] = {
        field.name: value.to(dtype)
        for field in fields(parameters)
        if isinstance(value := getattr(parameters, field.name), Tensor)
    }
    return replace(parameters, **changed)
