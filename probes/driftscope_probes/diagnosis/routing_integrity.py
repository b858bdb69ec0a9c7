"""Whether captured or replayed routes are what the routers chose: every sign of corruption.

In: Tokens and the expert ids of one side or both. Out: RoutingIntegrity; and Routing, all that a
step says about its routes. Free of torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from driftscope_probes.diagnosis.routing import RoutingAgreement, agreement_of
from driftscope_probes.diagnosis.routing_alignment import alignment_signs
from driftscope_probes.diagnosis.routing_differences import (
    RouteDifferences,
    Routes,
    checked_routes,
    comparable,
    route_differences,
)
from driftscope_probes.diagnosis.routing_rows import row_signs
from driftscope_probes.diagnosis.routing_sign import Sign
from driftscope_probes.tokens import Tokens


@dataclass(frozen=True, slots=True)
class RoutingIntegrity:
    signs: tuple[Sign, ...]  # every one that could be looked for, seen or not

    @property
    def significant(self) -> tuple[Sign, ...]:
        """Those that chance does not explain, the least likely first."""
        found = (sign for sign in self.signs if sign.significant)
        return tuple(sorted(found, key=lambda sign: sign.p_value))

    def to_dict(self) -> dict[str, Any]:
        return {
            "corrupt": bool(self.significant),
            "signs": [sign.to_dict() for sign in self.signs],
        }


def routing_integrity(
    tokens: Tokens,
    rollout_routes: ArrayLike | None = None,
    trainer_routes: ArrayLike | None = None,
) -> RoutingIntegrity:
    """Both routes: [tokens, layers, k] integer ids of experts, -1 where no route was captured. With
    one of them its own rows are looked at. Raises TraceError where shapes or dtypes do not fit.
    """
    rollout, trainer = _checked(tokens, rollout_routes, trainer_routes)
    return _integrity(tokens, rollout, trainer, _differences(tokens, rollout, trainer))


@dataclass(frozen=True, slots=True)
class Routing:
    """What a step says about its routes."""

    agreement: RoutingAgreement | None  # None: `not_compared` says why
    not_compared: str | None
    integrity: RoutingIntegrity

    def to_dict(self) -> dict[str, Any]:
        return {
            "agreement": None if self.agreement is None else self.agreement.to_dict(),
            "not_compared": self.not_compared,
            "integrity": self.integrity.to_dict(),
        }


def routing_of(
    tokens: Tokens, rollout_routes: ArrayLike | None, trainer_routes: ArrayLike | None
) -> Routing | None:
    """None without routes, also where both have no layer; raises as routing_integrity."""
    given = [
        None if routes is None or np.size(routes) == 0 else routes
        for routes in (rollout_routes, trainer_routes)
    ]
    rollout, trainer = _checked(tokens, *given)
    if rollout is None and trainer is None:
        return None
    found = _differences(tokens, rollout, trainer)
    return Routing(
        agreement=None if found is None else agreement_of(tokens, found),
        not_compared=_not_compared(rollout, trainer),
        integrity=_integrity(tokens, rollout, trainer, found),
    )


def _checked(
    tokens: Tokens, rollout: ArrayLike | None, trainer: ArrayLike | None
) -> tuple[Routes | None, Routes | None]:
    size = tokens.rollout.size
    return (
        None if rollout is None else checked_routes("routed_experts", rollout, size),
        None if trainer is None else checked_routes("trainer_routed_experts", trainer, size),
    )


def _not_compared(rollout: Routes | None, trainer: Routes | None) -> str | None:
    if rollout is None:
        return "The step has no routed_experts to compare trainer_routed_experts with."
    if trainer is None:
        return "The step has no trainer_routed_experts to compare routed_experts with."
    return comparable(rollout, trainer)


def _differences(
    tokens: Tokens, rollout: Routes | None, trainer: Routes | None
) -> RouteDifferences | None:
    if rollout is None or trainer is None or comparable(rollout, trainer) is not None:
        return None
    return route_differences(tokens, rollout, trainer)


def _integrity(
    tokens: Tokens,
    rollout: Routes | None,
    trainer: Routes | None,
    found: RouteDifferences | None,
) -> RoutingIntegrity:
    replayed = found is not None and not found.layer_flips.any()
    signs = row_signs(tokens, rollout, trainer, replayed)
    if found is not None and rollout is not None and trainer is not None:
        signs += alignment_signs(tokens, rollout, trainer, found)
    return RoutingIntegrity(signs)
