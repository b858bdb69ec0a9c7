"""Observed: all that a diagnosis may look at of one step.

In: a pushed step, or the two sides of a probe's cell. Out: one value for the detectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.routing_integrity import Routing, routing_of
from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.tokens import Extras, Tokens

#: Nine digits fit the int32 in which `behavior_version` is sent; a hash or a time does not count.
MAX_VERSION_DIGITS = 9


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    tokens: Tokens
    metadata: Mapping[str, str] = field(default_factory=dict)  # names of docs/push-format.md
    advantages: NDArray[np.floating[Any]] | None = None  # [tokens]
    rollout_token_ids: NDArray[np.integer[Any]] | None = None  # [tokens], may differ from token_ids
    routed_experts: NDArray[np.integer[Any]] | None = None  # [tokens, layers, k]
    trainer_routed_experts: NDArray[np.integer[Any]] | None = None  # [tokens, layers, k]
    routing: Routing | None = None  # what the routes say; None: there are none


def observed_of(step: PushedStep) -> Observed:
    """All of a step, its routes compared; raises TraceError where they do not fit."""
    tokens = compared_tokens(step)
    routing = routing_of(tokens, step.routed_experts, step.trainer_routed_experts)
    return observed_step(step, tokens, routing)


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


def compared_tokens(step: PushedStep) -> Tokens:
    """The step as its comparison reads it."""
    # A step always has a mask; where it leaves nothing out, the compiled pass need not look at it.
    mask = None if step.mask.all() else step.mask
    return Tokens(step.rollout, step.trainer, step.cu_seqlens, mask, _extras(step))


def _extras(step: PushedStep) -> Extras:
    """Lags need the trainer's own step beside the rollouts': metadata `weights_version`."""
    if not countable_version(step.metadata):
        return replace(step.extras, behavior_version=None, token_behavior_version=None)
    return replace(step.extras, train_version=int(step.metadata["weights_version"]))


def countable_version(metadata: Mapping[str, str]) -> bool:
    """`weights_version` is the number of a step, against which `behavior_version` counts."""
    version = metadata.get("weights_version", "")
    return version.isdecimal() and len(version) <= MAX_VERSION_DIGITS
