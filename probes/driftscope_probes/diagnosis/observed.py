"""Observed: all that a diagnosis may look at of one step.

In: a pushed step, or the two sides of a probe's cell. Out: one value for the detectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.routing_integrity import Routing
from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.tokens import Tokens


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    tokens: Tokens
    metadata: Mapping[str, str] = field(default_factory=dict)  # names of docs/push-format.md
    advantages: NDArray[np.floating[Any]] | None = None  # [tokens]
    rollout_token_ids: NDArray[np.integer[Any]] | None = None  # [tokens], may differ from token_ids
    routed_experts: NDArray[np.integer[Any]] | None = None  # [tokens, layers, k]
    trainer_routed_experts: NDArray[np.integer[Any]] | None = None  # [tokens, layers, k]
    routing: Routing | None = None  # what the routes say; None: there are none


def observed_step(step: PushedStep, tokens: Tokens, routing: Routing | None = None) -> Observed:
    """`tokens`: the step's, with the extras as its comparison used them."""
    return Observed(
        tokens=tokens,
        metadata=step.metadata,
        advantages=step.advantages,
        rollout_token_ids=step.rollout_token_ids,
        routed_experts=step.routed_experts,
        trainer_routed_experts=step.trainer_routed_experts,
        routing=routing,
    )
