"""Precision: the same function in fewer bits. Healthy rounding is one of these.

In: an Examination. Out: findings on dtypes of the head and of stored values.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.diagnosis.body import reach_of
from driftscope_probes.diagnosis.cause import Evidence, Finding
from driftscope_probes.diagnosis.examination import Examination, ramp
from driftscope_probes.diagnosis.families.base import Cause
from driftscope_probes.diagnosis.floor import AT_FLOOR_UP_TO
from driftscope_probes.diagnosis.plots import noise_by_certainty


def rounding(seen: Examination) -> Finding | None:
    signals = seen.signals
    if signals.sigma is None or signals.sigma == 0:
        return None
    size = ramp(seen.moved, 2.0 * AT_FLOOR_UP_TO, AT_FLOOR_UP_TO)
    shape = 1.0 if seen.rounding_shape and not seen.unclean else 0.3
    if seen.rounding_shape and seen.floor.source == "prior":
        size = max(size, 0.5)  # the shape holds for models whose size nobody calibrated
    confidence = 0.9 * size * shape
    if (signals.excess or 0.0) > AT_FLOOR_UP_TO:
        # A candidate: "nothing has to change" is not an answer, above a measured floor least of
        # all.
        confidence = min(confidence, 0.45 if seen.floor.source == "prior" else 0.15)
    if confidence < 0.05:
        return None
    ratio, distance = signals.mean_ratio
    evidence = [
        Evidence("noise on the logits over the floor", round(seen.moved, 2), "up to 2"),
        Evidence("mean ratio ρ", round(ratio, 5), "1 within 4 standard errors"),
        Evidence("standard errors from 1", round(distance, 1), "within 4"),
    ]
    if signals.sure_ratio is not None:
        evidence.append(
            Evidence(
                "|Δ| at p > 0.9 over that at p < 0.5", round(signals.sure_ratio, 3), "0.05 to 0.10"
            )
        )
    return Finding(confidence, tuple(evidence))


def head_precision(seen: Examination) -> Finding | None:
    """Logits or log-probabilities kept in bf16 where everything else is finer."""
    stored = _stored_short(seen)
    if stored is not None:
        return stored
    settings = seen.settings
    dtypes = {settings.rollout_dtype, settings.trainer_dtype}
    finer = dtypes <= {"fp16", "fp32"}
    # Nothing else makes a float32 pair as coarse as bf16 logits.
    coarse = dtypes == {"fp32"} and not seen.rounding_shape
    known = 1.0 if seen.floor.source == "calibrated" or coarse else 0.4
    body = seen.signals.body
    split = seen.places.two_groups
    if split is not None and seen.clean(split) > 0.5 and finer:
        body = seen.places.body.of(split.dirty)  # the rest did not go through that head
    residual = body.residual[body.certainty < 0.9]
    if residual.size < 64:
        return None
    reach = reach_of(body) or np.inf
    bounded = float(np.quantile(np.abs(residual), 0.995))
    confidence = (
        (0.9 if finer else 0.7)
        * known
        * (ramp(reach, 7.0, 4.5) if coarse else ramp(reach, 3.7, 3.1))
        * ramp(seen.moved, 1.8, 3.0)
        * ramp(bounded, 0.004, 0.015)
        * ramp(bounded, 0.35, 0.2)
        * (1.0 if body is not seen.signals.body else seen.same_everywhere)
    )
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            Evidence(
                "outermost residuals over typical ones",
                round(float(reach), 2),
                "above 3.3; below 3 for one rounding to a grid",
            ),
            Evidence(
                "largest residual (99.5 %), nats",
                round(bounded, 4),
                "half a step of bf16 logits is 0.016 to 0.063",
            ),
            Evidence("noise over the floor of the dtypes", round(seen.moved, 2), "up to 2"),
        ),
    )


def _stored_short(seen: Examination) -> Finding | None:
    bits = dict(zip(("rollout", "trainer"), seen.relation.stored_bits, strict=True))
    short = {side: number for side, number in bits.items() if number < 24}
    if not short:
        return None
    body = seen.signals.body
    side, number = min(short.items(), key=lambda item: item[1])
    values = body.rollout if side == "rollout" else body.trainer
    _, exponent = np.frexp(values)
    half_step = np.ldexp(0.5, exponent - number)
    within = float((np.abs(body.delta) <= 1.5 * half_step + 2 * seen.floor.sigma).mean())
    share = float(np.sqrt(np.mean(half_step**2) / 3 / max(np.mean(body.delta**2), 1e-30)))
    # As large as the difference, or larger: then the storage is what is seen.
    confidence = 0.9 * ramp(share, 0.3, 0.6) * ramp(within, 0.5, 0.8)
    if number == 11:
        confidence *= ramp(seen.moved, 1.0, 2.0)
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            Evidence(f"significant bits of the {side} values", number, "24, float32"),
            Evidence(
                "half a step at their median, nats",
                float(f"{float(np.median(half_step)):.3g}"),
                "1e-7",
            ),
            Evidence(
                "noise of storing them over the whole difference", round(share, 2), "below 0.1"
            ),
        ),
    )


CAUSES = (
    Cause(
        name="lm_head_precision",
        title="logits or log-probabilities are kept in bf16 on one side",
        level="semantics",
        mechanism="The head's product is stored in bf16 (steps of 0.06 to 0.125 nats at usual "
        "logits), or log-probabilities are written in 16 bits.",
        signature="Values on a coarse grid; residuals flat and bounded by half a step, the same at "
        "every length.",
        remedy="Compute the head in float32 on both sides (one side alone can be worse), and store "
        "log-probabilities as float32.",
        next_control="Score once with a float32 head on both sides.",
        detect=head_precision,
        plot=noise_by_certainty,
    ),
    Cause(
        name="bf16_rounding_tail",
        title="rounding alone: nothing is wrong",
        level="arithmetic",
        mechanism="Both sides compute the same function; kernels add in another order and round at "
        "other places.",
        signature="Zero mean, mean ratio 1, |Δ| falls as 1 - p, no structure over position, turn "
        "or sequence.",
        remedy="Nothing has to change. FP16 on both sides makes it about eight times smaller, "
        "batch-invariant kernels on both sides make it zero.",
        next_control="Score in FP16 on both sides: the noise falls about eightfold.",
        detect=rounding,
        plot=noise_by_certainty,
        healthy=True,
    ),
)
