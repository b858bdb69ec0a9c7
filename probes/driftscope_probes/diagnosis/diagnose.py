"""From what was observed of a step to its diagnosis.

In: Observed and the floor that holds for it. Out: Diagnosis: verdict, causes, what is missing.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np

from driftscope_probes.diagnosis.body import FEW_TOKENS
from driftscope_probes.diagnosis.catalogue import catalogue
from driftscope_probes.diagnosis.cause import (
    NAMED_FROM,
    ComparisonVerdict,
    Diagnosis,
    Evidence,
    Finding,
    NamedCause,
)
from driftscope_probes.diagnosis.examination import Examination
from driftscope_probes.diagnosis.families.records import one_constant
from driftscope_probes.diagnosis.floor import (
    ABOVE_FLOOR_UP_TO,
    AT_FLOOR_UP_TO,
    Floor,
    prior_floor,
)
from driftscope_probes.diagnosis.missing import missing_data
from driftscope_probes.diagnosis.observed import Observed
from driftscope_probes.diagnosis.rank import ranked
from driftscope_probes.diagnosis.recorded_weights import differing_weights, weigh
from driftscope_probes.diagnosis.sentence import sentence_of
from driftscope_probes.diagnosis.settings import settings_of

#: Below FEW_TOKENS tokens nothing is surer than this: shapes cannot be read.
CONFIDENCE_OF_FEW = 0.3
#: A cause so sure needs no more data.
SURE_FROM = 0.8
#: Levels whose signatures are unmistakable: no size of rounding looks like them.
UNMISTAKABLE = frozenset({"comparable", "alignment", "semantics", "context"})
#: Intended, or normal for routing in short dtypes: no bug of either side, so the size decides.
NO_BUG = frozenset({"policy_staleness", "moe_routing_flip"})


def diagnose(
    observed: Observed, floor: Floor | None = None, *, without: Set[str] = frozenset()
) -> Diagnosis:
    """`floor`: a calibrated one; without it the prior of the metadata's dtypes is used.

    `without`: names of causes whose detectors are not asked (the drill's honesty figure).
    """
    settings = settings_of(observed.metadata)
    if floor is None:
        floor = prior_floor(
            settings.rollout_dtype,
            settings.trainer_dtype,
            moe=observed.routed_experts is not None,
            model=settings.model,
        )
    seen = Examination(observed, floor)
    signals = seen.signals
    if signals.unmasked == 0:
        return _answer(seen, "not_comparable", (), reason="every token is masked")
    if signals.same_bits:
        return _answer(seen, "bitwise_equal", (), reason=None)
    findings = _findings(seen, without)
    causes = ranked(seen, findings)
    verdict, reason = _verdict(seen, causes)
    return _answer(seen, verdict, causes, reason=reason)


def _findings(seen: Examination, without: Set[str]) -> dict[str, Finding]:
    findings = {}
    body = seen.signals.body
    few = body.tokens < FEW_TOKENS
    # No shape can be read from no values, nor from one constant.
    blank = body.tokens == 0 or one_constant(body.rollout) or one_constant(body.trainer)
    for cause in catalogue().causes:
        if cause.name in without or cause.detect is None:
            continue
        if blank and cause.level != "comparable":
            continue
        found = cause.detect(seen)
        if found is None:
            continue
        confidence = found.confidence
        if cause.level not in ("comparable", "weights"):
            confidence *= 1.0 - seen.measured_weights  # what is left to explain
        if few and cause.level != "comparable":
            confidence = min(confidence, CONFIDENCE_OF_FEW)
        found = Finding(confidence, found.evidence)
        findings[cause.name] = found
    weighed = weigh(seen, findings)
    return {name: found for name, found in weighed.items() if name not in without}


def _verdict(
    seen: Examination, causes: tuple[NamedCause, ...]
) -> tuple[ComparisonVerdict, str | None]:
    signals = seen.signals
    first = causes[0] if causes else None
    named = first if first and first.confidence >= NAMED_FROM else None
    if named and named.name == "retokenization_drift" and _ids_differ(seen):
        return "not_comparable", "the two sides hold other token ids"
    if signals.body.tokens == 0:
        return "not_comparable", "no token has two values that are log-probabilities"
    if signals.body.tokens < 2:
        return "not_comparable", "one token says nothing about a distribution"
    excess = signals.excess or 0.0
    # Other weights are no rounding, however little they do to these tokens.
    if seen.unclean or differing_weights(seen) is not None:
        return "bug_like", None
    if named and named.name in NO_BUG:
        return ("above_floor" if excess > AT_FLOOR_UP_TO else "at_floor"), None
    if named and catalogue().by_name[named.name].level in UNMISTAKABLE:
        return "bug_like", None
    if excess <= AT_FLOOR_UP_TO:
        # Rounding has a shape as well as a size: a small difference of another shape is more.
        return ("at_floor" if seen.rounding_shape else "above_floor"), None
    if excess <= ABOVE_FLOOR_UP_TO:
        return "above_floor", None
    noisy_model = seen.rounding_shape and seen.floor.source == "prior"
    sick = named is not None and not catalogue().healthy(named.name)
    if not sick and (noisy_model or seen.tail_only):
        return "above_floor", None
    return "bug_like", None


def _ids_differ(seen: Examination) -> bool:
    engine, trained = seen.observed.rollout_token_ids, seen.signals.extras.token_ids
    return engine is not None and trained is not None and bool(np.any(engine != trained))


def _answer(
    seen: Examination,
    verdict: ComparisonVerdict,
    causes: tuple[NamedCause, ...],
    *,
    reason: str | None,
) -> Diagnosis:
    signals = seen.signals
    empty = signals.unmasked == 0 or signals.body.tokens == 0
    first = causes[0] if causes else None
    sick = verdict in ("above_floor", "bug_like") or (verdict == "not_comparable" and not empty)
    unexplained = (
        sick
        and signals.body.tokens >= 2
        and (first is None or first.confidence < NAMED_FROM or catalogue().healthy(first.name))
    )
    stood_out: tuple[Evidence, ...] = () if empty or not sick else seen.shape_faults
    if stood_out or sick:
        environments = None if empty else seen.environments
        stood_out += () if environments is None else (environments,)
    excess = None if empty else signals.excess
    return Diagnosis(
        verdict=verdict,
        sentence=sentence_of(seen, verdict, causes, reason, unexplained, excess),
        excess=excess,
        sigma=None if empty else signals.sigma,
        floor=seen.floor,
        causes=causes,
        unexplained=unexplained,
        stood_out=stood_out,
        missing=missing_data(
            seen, verdict, sure=first is not None and first.confidence >= SURE_FROM
        ),
    )
