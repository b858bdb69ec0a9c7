"""A side whose ops are seen: an engine or a trainer that runs the sample through a tap.

In: a loaded model. Out: log-probabilities, what its ops compute with, and what really ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from driftscope_kernels.compare_ops.parameters import Parameters
from driftscope_probes.explain.sample import Sample
from driftscope_probes.explain.sites import Site
from driftscope_probes.explain.taps import Tap

SideName = Literal["engine", "trainer"]


@dataclass(frozen=True)
class Received:
    """What one side's model was called with, padding left out."""

    tokens: NDArray[np.int64]  # [rows]
    positions: NDArray[np.int64]  # [rows]
    lengths: NDArray[np.int64]  # [sequences] rows that attention may see


class Side(Protocol):
    @property
    def name(self) -> SideName: ...

    @property
    def dtype(self) -> torch.dtype:
        """In which it stores what it computes, most of it."""
        ...

    def run(self, sample: Sample, tap: Tap | None) -> NDArray[np.float32]:
        """Log-probabilities of all response tokens, packed, in nats. None: nothing is hooked.

        Whatever happens, the model is afterwards as it was. Raises ProbeError.
        """
        ...

    def logprobs(self, logits: torch.Tensor) -> torch.Tensor:
        """[n, vocabulary] as its head gives them -> float32 nats, by its own log-softmax."""
        ...

    def parameters(self, site: Site) -> Parameters | None:
        """None where they cannot be read from this model."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """What really ran, read back: backend, kernels, threads, dtype of each part."""
        ...

    @property
    def received(self) -> Received:
        """Of the last run through a tap."""
        ...

    @property
    def uncovered(self) -> list[str]:
        """Parts of the model whose ops are not seen, by name."""
        ...


class EngineSide(Side, Protocol):
    def draw(self) -> Sample:
        """Responses to the prompts it was loaded with, as its sampling draws them."""
        ...
