"""Experts: tokens that took another route on the two sides.

In: an Examination. Out: findings on flips between experts and on corrupt replays.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.diagnosis.cause import Cause, Evidence, Finding
from driftscope_probes.diagnosis.examination import Examination, ramp
from driftscope_probes.diagnosis.floor import AT_FLOOR_UP_TO
from driftscope_probes.diagnosis.plots import noise_by_certainty

#: Near-ties move up to a tenth of the routers (R3 paper: about 10 %); more is not rounding.
NEAR_TIES = 0.2


def routing_flip(seen: Examination) -> Finding | None:
    """Isolated wild tokens on a healthy body."""
    places, signals = seen.places, seen.signals
    wild = places.wild
    count, fraction = int(wild.sum()), float(wild.mean()) if wild.size else 0.0
    if count < 3 or (signals.excess or 0.0) <= AT_FLOOR_UP_TO:
        return None
    after, base = places.adjacency
    isolated = ramp(after - base, 0.35, 0.12)
    kurtosis = signals.kurtosis or 0.0
    moe = "moe" in (seen.settings.model or "").lower()
    confidence = (
        (0.75 if moe else 0.6)
        * isolated
        * ramp(kurtosis, 40.0, 150.0)
        * ramp(seen.moved, 4.0, 2.0)
        * ramp(fraction, 0.3, 0.15)
        * ramp(abs(signals.mean_ratio[1]), 8.0, 4.0)
    )
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            Evidence("tokens beyond 8 typical residuals", count, "none to a few"),
            Evidence(
                "their neighbours that are wild too",
                round(after, 2),
                f"{base:.3f} if they are isolated",
            ),
            Evidence("kurtosis of residuals", round(kurtosis, 0), "4 to 30"),
            Evidence("typical noise of all others over the floor", round(seen.moved, 2), "up to 2"),
        ),
        noise_by_certainty(signals),
    )


CAUSES = (
    Cause(
        name="moe_routing_flip",
        title="tokens near a tie go to other experts",
        level="arithmetic",
        mechanism="Rounding turns the order of nearly equal router logits: another expert, another "
        "output.",
        signature="Single tokens far off on a healthy body; those whose routes agree are at the "
        "floor.",
        remedy="Replay the engine's routes in the trainer (R3), or compute the router in float32 on "
        "both sides.",
        next_control="Push routed_experts and trainer_routed_experts: the difference sits in the "
        "tokens that flipped.",
        detect=routing_flip,
    ),
)
