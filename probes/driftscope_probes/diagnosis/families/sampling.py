"""Sampling: the two sides mean different distributions by "the log-probability".

In: an Examination. Out: findings on temperature, scaling after the softmax, truncation.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.diagnosis.cause import Evidence, Finding
from driftscope_probes.diagnosis.examination import Examination, ramp
from driftscope_probes.diagnosis.families.base import Cause
from driftscope_probes.diagnosis.families.function import ALIKE, share
from driftscope_probes.diagnosis.plots import noise_by_certainty, trainer_on_rollout
from driftscope_probes.diagnosis.relation import correlation

#: The power of a softmax is not told from 1 below this.
SMALLEST_POWER = 0.02
#: A nucleus that keeps less than e^-1.2 = 0.3 is no setting in use.
LOWEST_LOG_MASS = -1.2
SURE = 0.96
#: Against what the metadata state: below NAMED_FROM, so a candidate at most. A setting may not be
#: what ran, but data alone do not outweigh it: other faults look alike.
AGAINST_SETTINGS = 0.4


def post_softmax(seen: Examination) -> Finding | None:
    line = seen.relation.origin_line
    if line is None:
        return None
    slope, left, before = line
    if abs(slope - 1) < SMALLEST_POWER or before == 0:
        return None
    confidence = (
        SURE
        * ramp(left / before, 0.35, 0.12)
        * ramp(left / seen.floor.sigma, 8.0, 3.0)
        * ramp(abs(slope - 1), 0.01, 0.04)
    )
    if confidence < 0.05:
        return None
    evidence = [
        Evidence("trainer = slope · engine, through 0: slope", round(slope, 4), "1"),
        Evidence(
            "noise left on that line, nats on the logits",
            float(f"{left:.3g}"),
            f"{before:.3g} without the slope, floor {seen.floor.sigma:.2g}",
        ),
    ]
    evidence += _stated_temperature(seen)
    return Finding(confidence, tuple(evidence))


def _on_a_line(seen: Examination) -> float:
    """1 where one slope through 0 leaves nothing of the difference."""
    line = seen.relation.origin_line
    if line is None or line[2] == 0 or abs(line[0] - 1) < SMALLEST_POWER:
        return 0.0
    return ramp(line[1] / line[2], 0.35, 0.12)


def temperature(seen: Examination) -> Finding | None:
    scaled, signals = seen.relation.scaled, seen.signals
    if scaled is None:
        return None
    stated = seen.settings.temperature
    off = abs(scaled.power - 1)
    # Entropy makes a softmax's shift almost exact; without it a part stays unexplained.
    asked = 0.75 if signals.extras.entropy is not None else 0.45
    shape = (
        ramp(scaled.purity, 0.5, 0.85)
        * ramp(scaled.opposite, 0.0, 0.45)
        * ramp(scaled.explained, asked - 0.35, asked)
        * ramp(off, 0.01, SMALLEST_POWER * 2)
    )
    body = signals.body
    # The same token under another temperature keeps its place among the others.
    same = correlation(np.maximum(body.rollout, -30), np.maximum(body.trainer, -30))
    shape *= (1 - 0.8 * seen.localised) * ramp(same, 0.5, 0.8)
    confidence = 0.95 * shape
    said = stated is not None and stated > 0 and abs(stated - 1) > 1e-6
    if said:
        assert stated is not None
        fits = min(abs(scaled.power - stated), abs(scaled.power - 1 / stated)) / abs(1 - stated)
        confidence = min(0.97, confidence + 0.5 * shape * ramp(fits, 1.0, 0.3))
    if seen.settings.states_one_temperature:
        confidence = min(confidence, AGAINST_SETTINGS)
    if confidence < 0.05:
        return None
    power = scaled.power
    evidence = [
        Evidence("temperature of the engine over that of the trainer", round(power, 3), "1"),
        *_stated_temperature(seen),
        Evidence(
            "variance of Δ that a softmax at that temperature explains",
            round(scaled.explained, 3),
            "about 0",
        ),
        Evidence("Δ of one sign at p between 0.6 and 0.98", round(scaled.purity, 2), "0.3 at most"),
        Evidence("mean ratio ρ", round(signals.mean_ratio[0], 4), "1"),
    ]
    return Finding(confidence, tuple(evidence))


def _stated_temperature(seen: Examination) -> list[Evidence]:
    stated, processed = seen.settings.temperature, seen.settings.processed
    if stated is None:
        return []
    mode = {True: ", processed", False: ", raw", None: ""}[processed]
    return [
        Evidence(
            "metadata: temperature",
            f"{stated:g}{mode} log-probabilities",
            "1, or the same on both sides",
        )
    ]


def truncation(seen: Examination) -> Finding | None:
    signals, relation, settings = seen.signals, seen.relation, seen.settings
    body = signals.body
    if body.tokens < 8:
        return None
    ratio, distance = signals.mean_ratio
    shown = np.abs(body.residual) > 4.0 * seen.signals.grain
    if shown.sum() < 4:
        return None
    deep = float(np.quantile(body.delta[shown], 0.02))
    alone = (body.rollout == 0.0) & (body.trainer < -1e-4)
    confidence = (
        0.93
        * ramp(-relation.one_sided, 0.6, 0.92)
        * ramp(-distance, 2.0, 5.0)
        * ramp(deep, 1.6 * LOWEST_LOG_MASS, LOWEST_LOG_MASS)
    )
    confidence *= (1 - 0.8 * seen.localised) * (1 - _on_a_line(seen))
    said = settings.truncated and settings.processed is not False
    if said:
        confidence = max(
            confidence, 0.97 * ramp(-relation.one_sided, 0.3, 0.7) * ramp(-distance, 1.0, 3.0)
        )
    elif alone.sum() >= 2:
        confidence = min(0.96, confidence * 1.05)
    if settings.states_no_truncation:
        confidence = min(confidence, AGAINST_SETTINGS)
    if confidence < 0.05:
        return None
    evidence = [
        Evidence("mean ratio ρ: the mass that was kept", round(ratio, 4), "1"),
        Evidence(
            "Δ above 0, of tokens beyond rounding",
            round((relation.one_sided + 1) / 2, 3),
            "about 0.5",
        ),
        Evidence("lowest Δ (2 %), nats", round(deep, 3), "log of the mass kept"),
        Evidence(
            "engine exactly 0 where the trainer is not",
            int(alone.sum()),
            "0; tokens alone in their nucleus",
        ),
    ]
    evidence += _stated_truncation(seen)
    return Finding(confidence, tuple(evidence))


def _stated_truncation(seen: Examination) -> list[Evidence]:
    settings = seen.settings
    stated = [
        f"{name} {value:g}"
        for name, value in (
            ("top_p", settings.top_p),
            ("top_k", settings.top_k),
            ("min_p", settings.min_p),
        )
        if value is not None
    ]
    if not stated:
        return []
    mode = {True: ", processed", False: ", raw", None: ""}[settings.processed]
    return [Evidence("metadata", ", ".join(stated) + mode, "no truncation, or raw")]


def generation_config(seen: Examination) -> Finding | None:
    """Truncation that nobody asked for: the engine filled in the model's own defaults."""
    if seen.settings.truncated:
        return None
    found = truncation(seen)
    if found is None:
        return None
    # The data say truncation; that it comes from the model's file is a guess of the second order.
    return Finding(0.6 * found.confidence, found.evidence)


def sharpening(seen: Examination) -> Finding | None:
    scaled, signals = seen.relation.scaled, seen.signals
    if scaled is None:
        return None
    _, distance = signals.mean_ratio
    confidence = (
        0.6
        * ramp(scaled.purity, 0.3, 0.6)
        * ramp(scaled.opposite, -0.1, 0.3)
        * ramp(scaled.explained, 0.1, 0.3)
        * ramp(scaled.explained, 0.97, 0.8)
        * ramp(seen.moved, 1.5, 3.0)
        * ramp(abs(distance), 8.0, 3.0)
        * seen.same_everywhere
    )
    confidence = max(confidence, share(seen, "entropy_sharpening"))
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            Evidence(
                "Δ of one sign at p between 0.6 and 0.98",
                round(scaled.direction * scaled.purity, 2),
                "-0.3 to 0.3",
            ),
            Evidence(
                "log odds of the trainer over those of the engine", round(scaled.power, 3), "1"
            ),
            Evidence(
                "variance of Δ that one temperature explains",
                round(scaled.explained, 2),
                "above 0.75 if it were a temperature",
            ),
        ),
    )


CAUSES = (
    Cause(
        name="post_softmax_scaling",
        title="log-probabilities were divided by the temperature after the softmax",
        level="semantics",
        mechanism="One side computes log p / T where log_softmax(logits / T) is meant.",
        signature="Trainer against engine is a straight line through 0 with rounding around it; "
        "the probabilities of that side do not sum to 1.",
        remedy="Divide the logits by the temperature before log_softmax.",
        next_control="Sample once at temperature 1: the difference disappears.",
        detect=post_softmax,
        plot=trainer_on_rollout,
    ),
    Cause(
        name="temperature_semantics",
        title="the two sides use different temperatures",
        level="semantics",
        mechanism="The engine samples at a temperature and reports raw log-probabilities while "
        "the trainer divides its logits, or it reports processed ones and the trainer does not.",
        signature="From position 0 on in all sequences; likely tokens move one way, unlikely ones "
        "the other; one temperature explains almost all of Δ.",
        remedy="Set logprobs_mode=processed_logprobs in the engine and divide the trainer's logits "
        "by the same temperature, or sample at temperature 1.",
        next_control="Sample once at temperature 1: the difference falls to the floor.",
        detect=temperature,
        plot=trainer_on_rollout,
    ),
    Cause(
        name="truncation_renorm",
        title="the engine renormalised over the tokens that top-p, top-k or min-p keep",
        level="semantics",
        mechanism="Processed log-probabilities are those of the truncated distribution; the "
        "trainer's are over the whole vocabulary. Δ is the log of the mass that was kept.",
        signature="Δ is 0 or below and bounded; the mean ratio is the mean mass kept; engine "
        "values of exactly 0 where one token was left.",
        remedy="Sample without truncation, or return the kept set (return_sampling_mask) and "
        "renormalise the trainer over it; raw_logprobs are comparable but not those of the draw.",
        next_control="Sample once with top_p 1, top_k 0, min_p 0: the difference falls to the "
        "floor.",
        detect=truncation,
        plot=trainer_on_rollout,
    ),
    Cause(
        name="generation_config_defaults",
        title="the engine took top-p, top-k or temperature from the model's generation_config.json",
        level="semantics",
        mechanism="Sampling fields that a request leaves open are filled from the model's own file "
        "(Qwen3: top_k 20, temperature 0.6).",
        signature="As truncation, although the metadata say that nothing is truncated.",
        remedy="Start vLLM with --generation-config vllm, or set every sampling field in each "
        "request.",
        next_control="Read generation_config.json of the model; sample once with "
        "--generation-config vllm.",
        detect=generation_config,
        plot=trainer_on_rollout,
    ),
    Cause(
        name="entropy_sharpening",
        title="one side is sharper than the other, not by one temperature",
        level="weights",
        mechanism="As a policy sharpens, the same rounding moves likely tokens up and unlikely "
        "ones down on one side; weights are equal.",
        signature="Δ above 0 for likely and below 0 for unlikely tokens (or the reverse) with the "
        "same favourite token, mean ratio 1; grows over the steps as entropy falls.",
        remedy="Keep logits and the last layers in float32 on both sides; hold entropy up (entropy "
        "bonus, clip-higher) and watch the difference by entropy.",
        next_control="Score one early and one late step with equal weights on both sides: the "
        "difference follows the entropy, not the weights.",
        detect=sharpening,
        plot=noise_by_certainty,
        alike=ALIKE,
    ),
)
