"""Experts: tokens that took another route on the two sides.

In: an Examination. Out: findings on flips between experts and on corrupt replays.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.cause import Cause, Evidence, Finding
from driftscope_probes.diagnosis.examination import Examination, ramp
from driftscope_probes.diagnosis.floor import AT_FLOOR_UP_TO
from driftscope_probes.diagnosis.plots import noise_by_certainty
from driftscope_probes.diagnosis.routing import RoutingAgreement
from driftscope_probes.mismatch.number import Undefined

#: Routes of near ties: about 10 % of the choices (R3 paper). Far more is not rounding.
NEAR_TIES = 0.3
#: Tokens in each group that make its mean worth reading.
FEW_IN_GROUP = 8


def routing_flip(seen: Examination) -> Finding | None:
    routing = seen.observed.routing
    if routing is not None and routing.agreement is not None:
        return _by_routes(seen, routing.agreement)
    return _isolated(seen)


def _by_routes(seen: Examination, agreement: RoutingAgreement) -> Finding | None:
    """The tokens that flipped carry the difference, those that agree are at the floor."""
    flipped, agreeing = agreement.flipped, agreement.agreeing
    means = flipped.abs_diff_mean, agreeing.abs_diff_mean
    if isinstance(means[0], Undefined) or isinstance(agreement.choices_flipped, Undefined):
        return None
    with_flip = float(means[0])
    without = 0.0 if isinstance(means[1], Undefined) else float(means[1])
    contrast = with_flip / max(without, 1e-12) if agreeing.tokens >= FEW_IN_GROUP else 1.0
    carried = with_flip * flipped.tokens
    share = carried / max(carried + without * agreeing.tokens, 1e-12)
    size = ramp(seen.signals.excess or 0.0, 0.8 * AT_FLOOR_UP_TO, 1.5 * AT_FLOOR_UP_TO)
    confidence = (
        0.93
        * size
        * ramp(flipped.tokens, 2, 8)
        * max(
            ramp(contrast, 1.3, 2.5) * ramp(share, 0.3, 0.6),
            0.6 * ramp(float(agreement.choices_flipped), 0.02, 0.08) * seen.same_everywhere,
        )
    )
    if seen.observed.routing is not None and seen.observed.routing.integrity.significant:
        confidence *= 0.4
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            Evidence(
                "choices of experts that differ",
                round(float(agreement.choices_flipped), 4),
                "0 with replay, up to 0.1 without",
            ),
            Evidence("mean |Δ| of tokens with a flip, nats", round(with_flip, 4), "as without"),
            Evidence(
                "mean |Δ| of tokens without, nats",
                round(without, 4) if agreeing.tokens else "no token",
                "the floor",
            ),
            Evidence("of all |Δ|, in tokens with a flip", round(share, 2), "their share of tokens"),
        ),
    )


def _isolated(seen: Examination) -> Finding | None:
    """Isolated wild tokens on a healthy body."""
    places, signals = seen.places, seen.signals
    wild = places.wild
    count, fraction = int(wild.sum()), float(wild.mean()) if wild.size else 0.0
    if count < 3 or (signals.excess or 0.0) <= AT_FLOOR_UP_TO:
        return None
    after, base = places.adjacency
    kurtosis = signals.kurtosis or 0.0
    model = (seen.settings.model or "").lower()
    experts = any(word in model for word in ("moe", "mixtral", "-a3b", "-a22b", "deepseek"))
    confidence = (
        (0.5 if experts else 0.4)
        * ramp(after - base, 0.35, 0.12)
        * ramp(places.wild_structure, 8.0, 4.0)
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
    )


def replay_corrupt(seen: Examination) -> Finding | None:
    routing = seen.observed.routing
    if routing is None:
        return None
    signs = routing.integrity.significant
    agreement = routing.agreement
    flipped = 0.0
    if agreement is not None and not isinstance(agreement.choices_flipped, Undefined):
        flipped = float(agreement.choices_flipped)
    confidence = 0.0
    if signs:
        # A repeated or padding row is a fact of the record, whatever it did to Δ.
        moved = ramp(seen.signals.excess or 0.0, 0.5, 2.0)
        confidence = 0.95 * max(0.75, moved)
        if all(sign.alternative is not None for sign in signs):
            confidence *= 0.5  # a sound cause fits as well
    elif flipped > NEAR_TIES:
        confidence = 0.5 * ramp(flipped, NEAR_TIES, 2 * NEAR_TIES)
    if confidence < 0.05:
        return None
    evidence = [
        Evidence(
            f"{sign.name.replace('_', ' ')} ({sign.side})",
            f"{sign.count} of {sign.of}: {sign.detail}",
            f"{sign.expected:.3g} by chance",
        )
        for sign in signs[:3]
    ]
    evidence.append(Evidence("choices of experts that differ", round(flipped, 4), "0 with replay"))
    return Finding(confidence, tuple(evidence))


CAUSES = (
    Cause(
        name="router_replay_corrupt",
        title="the replayed routes are not those that the engine took",
        level="alignment",
        mechanism="Rows of padding, stale rows after a retraction, or a shift by one in the "
        "captured routes: replay then does more harm than good.",
        signature="Rows that repeat far more often than chance, neighbours that fit better than "
        "the token's own row, disagreement from a chunk border on.",
        remedy="Check that every token has its own captured row (no padding, no reuse after "
        "preemption) before it is replayed; switch replay off until it does.",
        next_control="Score once with replay off: the difference must not be smaller than with it.",
        detect=replay_corrupt,
        plot=noise_by_certainty,
    ),
    Cause(
        name="moe_routing_flip",
        title="tokens near a tie go to other experts",
        level="context",
        mechanism="Rounding turns the order of nearly equal router logits: another expert, another "
        "output.",
        signature="Single tokens far off on a healthy body; those whose routes agree are at the "
        "floor.",
        remedy="Replay the engine's routes in the trainer (R3), or compute the router in float32 "
        "on both sides.",
        next_control="Score once with the engine's routes replayed (push both sides' routes with "
        "it): the difference falls to the floor.",
        detect=routing_flip,
        plot=noise_by_certainty,
    ),
)
