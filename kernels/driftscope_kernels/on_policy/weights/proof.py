"""WeightsProof: does the engine in this process compute with the trainer's weights, step by step?

In: a transformers model and a model of vLLM's in one process, and a way to ask both for known
tokens. Out: a WeightsDigest per check; nothing of either side is changed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import nn

from driftscope_kernels.on_policy.weights.engine import EngineWeights
from driftscope_kernels.on_policy.weights.recorded import WeightsDigest
from driftscope_kernels.on_policy.weights.trainer import (
    MergedWeights,
    TrainerDigests,
    digests_of,
    has_adapters,
)
from driftscope_kernels.on_policy.weights.verdict import Digests, Seen, judge

#: Versions that a stale engine is looked up in; 300 tensors of one take about 30 kB.
MOST_VERSIONS: Final = 8
#: Known tokens go through both sides at every so many checks: a forward of both takes longer than
#: all digests, and finds only what no tensor shows.
FUNCTION_EVERY: Final = 10
#: Largest |Δ| of known tokens, nats, that rounding alone makes between kernels of two sides. Random
#: tokens are unlikely ones, whose |Δ| is the largest: a few tenths in bf16 (SmolLM2).
ALLOWED: Final = {torch.bfloat16: 1.0, torch.float16: 0.15, torch.float32: 1e-3}
#: Sides that are exact.
EXACT: Final = 0.0

Score = Callable[[], Sequence[float]]


class WeightsProof:
    """`ask`: log-probabilities of the same known tokens by engine and trainer; None: digests only.

    `allowed`: of their largest difference, nats; None: by the engine's dtype."""

    def __init__(
        self,
        trainer: Any,
        engine: nn.Module,
        *,
        ask: tuple[Score, Score] | None = None,
        allowed: float | None = None,
        function_every: int = FUNCTION_EVERY,
    ) -> None:
        self._trainer, self._engine = trainer, EngineWeights(engine)
        self._ask, self._every = ask, function_every
        dtype = next(iter(engine.parameters())).dtype
        self._allowed = ALLOWED.get(dtype, EXACT) if allowed is None else allowed
        self._adapted = MergedWeights(trainer, self._engine) if has_adapters(trainer) else None
        self._versions: deque[Digests] = deque(maxlen=MOST_VERSIONS)
        self._checks = 0

    def check(self, version: int) -> WeightsDigest | None:
        """`version`: optimiser steps done. None where the engine shows no tensor, and before the
        first sync of an adapter."""
        self._engine.look()
        own = self._own()
        if own is None or not own.by_name:
            return None
        seen = Seen(
            trainer=own.by_name,
            engine={name: self._of_engine(own, name) for name in own.by_name},
            earlier=[one for one in self._versions if one != own.by_name],
            base=None
            if self._adapted is None or self._adapted.base is None
            else self._adapted.base.by_name,
            tied=own.tied,
            rounded=own.rounded,
        )
        found = judge(
            seen,
            version,
            unseen=len(own.unseen),
            function_diff=self._function_diff(),
            allowed=self._allowed,
        )
        if not self._versions or self._versions[0] != own.by_name:
            self._versions.appendleft(own.by_name)
        return found

    def _own(self) -> TrainerDigests | None:
        if self._adapted is not None:
            return self._adapted.merged
        return digests_of(self._trainer, self._engine)

    def _of_engine(self, own: TrainerDigests, name: str) -> int:
        digest = self._engine.digest(name, own.rows[name])
        # Another number of rows than the trainer's: no digest has this value.
        return -1 if digest is None else digest

    def _function_diff(self) -> float | None:
        due, self._checks = self._checks % self._every == 0, self._checks + 1
        if self._ask is None or not due:
            return None
        engine, trainer = (torch.tensor(list(score()), dtype=torch.float64) for score in self._ask)
        return float((trainer - engine).abs().max())
