"""A side run again with some of its ops computed the other side's way.

In: a side, and for some sites a way. Out: the log-probabilities that come of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import Parameters
from driftscope_kernels.compare_ops.variant import AnyVariant, Inputs
from driftscope_probes.explain.comparison import scored_only
from driftscope_probes.explain.sample import Sample
from driftscope_probes.explain.sides.base import Side
from driftscope_probes.explain.sites import Place, Site
from driftscope_probes.explain.store import Store


@dataclass(frozen=True, slots=True)
class SiteWay:
    """How one site is to be computed."""

    site: Site
    variant: AnyVariant
    parameters: Parameters
    input_dtypes: Mapping[str, torch.dtype]  # of the side whose way it is
    output_dtype: torch.dtype  # likewise; what comes of it is cast to the dtype of the run


def replayed(
    side: Side, sample: Sample, ways: Sequence[SiteWay], scratch: Path
) -> NDArray[np.float32]:
    """[response tokens] nats. Raises ProbeError."""
    with Store(sample.rows, scratch) as store:
        return side.run(sample, Swapped(sample, ways, store))


class Swapped:
    """A tap that puts a way's result in the place of the side's own.

    The inputs are those of this very run, so that swaps add up. What attention reads of earlier
    tokens is what this run gave for them, also where they were read in an earlier step.
    """

    def __init__(self, sample: Sample, ways: Sequence[SiteWay], store: Store) -> None:
        self._sample, self._store = sample, store
        self._ways = {place: way for way in ways for place in way.site.outputs.values()}
        self._ready: dict[Place, Tensor] = {}  # outputs of a site whose first was asked for

    def at(self, place: Place, value: Tensor, rows: Tensor) -> Tensor:
        way = self._ways.get(place)
        if way is not None:
            if place not in self._ready:
                self._compute(way, rows)
            value = self._ready.pop(place).to(value.device, value.dtype).reshape(value.shape)
        self._store.write(place, rows, value)
        return value

    def _compute(self, way: SiteWay, rows: Tensor) -> None:
        order = torch.argsort(rows, stable=True)
        wanted = rows[order]
        read = self._context(wanted) if way.site.kind == "attention" else wanted
        outputs = way.variant.run(self._inputs(way, read), way.parameters, way.output_dtype)
        # `wanted` is in ascending order, and so is `read`.
        at = torch.searchsorted(read, wanted)
        back = torch.argsort(order)
        for place, output in zip(way.site.outputs.values(), outputs, strict=True):
            self._ready[place] = output[at][back]

    def _context(self, rows: Tensor) -> Tensor:
        """Every row of the sequences of `rows`.

        Those that were not read yet are zeros, which causal attention does not see: they are there
        because kernels choose their tiles by the length of a sequence.
        """
        starts = self._sample.cu_seqlens
        sequences = sorted(set(self._sequences(rows).tolist()))
        return torch.cat([torch.arange(starts[one], starts[one + 1]) for one in sequences])

    def _inputs(self, way: SiteWay, rows: Tensor) -> Inputs:
        tensors = {
            name: self._store.read_rows(place, rows).to(way.input_dtypes[name])
            for name, place in way.site.inputs.items()
        }
        counts = torch.bincount(self._sequences(rows), minlength=len(self._sample.prompts))
        scored = scored_only(way.site)
        tokens = self._sample.targets if scored else self._sample.tokens
        return Inputs(
            tensors,
            torch.from_numpy(self._sample.positions)[rows],
            torch.tensor([0, *counts[counts > 0].cumsum(0).tolist()]),
            torch.from_numpy(tokens)[rows],
        )

    def _sequences(self, rows: Tensor) -> Tensor:
        ends = torch.from_numpy(self._sample.cu_seqlens)[1:]
        return torch.searchsorted(ends, rows, right=True)
