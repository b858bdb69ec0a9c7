"""How the difference grows through the layers, and where what is left at the end comes from.

In: the captured runs of both sides, and the trainer to run again. Out: Growth, layer by layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from driftscope_probes.explain.comparison import Passes
from driftscope_probes.explain.report import Growth
from driftscope_probes.explain.sides.base import Side
from driftscope_probes.explain.sites import Place
from driftscope_probes.explain.taps import Replaced

#: Layers from which the trainer is run again on the engine's stream: each costs a forward pass, and
#: what is left changes little from one layer to the next.
MOST_RERUN: Final = 6


def growth_of(passes: Passes, trainer: Side) -> list[Growth]:
    """Raises ProbeError."""
    streams = _streams(passes)
    rerun = frozenset(_spread(len(streams), MOST_RERUN))
    found: list[Growth] = []
    before: float | None = None
    for index, place in enumerate(streams):
        mine = passes.engine.read(place).double()
        theirs = passes.trainer.read(place).double()
        relative = float((mine - theirs).norm() / theirs.norm().clamp_min(1e-300))
        left = _left(passes, trainer, place) if index in rerun and relative else None
        found.append(
            Growth(
                layer=0 if place.name == "embedding" else place.layer,
                relative_difference=relative,
                amplification=relative / before if before else None,
                abs_diff_mean_after=left,
            )
        )
        before = relative
    return found


def _streams(passes: Passes) -> list[Place]:
    """The residual stream as it enters each layer, and behind the last."""
    layers = sorted({site.layer for site in passes.sites if site.layer is not None})
    wanted = [
        Place(None, "embedding"),
        *(Place(layer, "residual_in") for layer in layers if layer),
        Place(None, "residual_out"),
    ]
    there = passes.engine.places & passes.trainer.places
    return [place for place in wanted if place in there]


def _spread(count: int, most: int) -> Sequence[int]:
    """Indices, the last of them the last layer."""
    if count <= most:
        return range(count)
    return sorted({round(step * (count - 1) / (most - 1)) for step in range(most)})


def _left(passes: Passes, trainer: Side, place: Place) -> float:
    """Nats that remain where the trainer goes on from the engine's stream."""
    values = trainer.run(passes.sample, Replaced(passes.engine, [place]))
    return float(np.abs(values.astype(np.float64) - passes.engine_logprobs).mean())
