"""Weights: the two sides run the same function with other parameters.

In: an Examination. Out: findings on syncs, reloads, adapters and quantisation. In one step's data
these look alike; advantages, versions, dtypes and metadata tell them apart, and where nothing does
they share their probability.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.diagnosis.cause import Evidence, Finding
from driftscope_probes.diagnosis.examination import Examination, ramp
from driftscope_probes.diagnosis.families.base import Cause
from driftscope_probes.diagnosis.families.function import (
    ALIKE,
    along_gradient,
    other_function,
    share,
)
from driftscope_probes.diagnosis.floor import PRIOR_SIGMA
from driftscope_probes.diagnosis.plots import noise_by_certainty, noise_by_sequence


def _gradient_evidence(seen: Examination) -> list[Evidence]:
    found = seen.signals.advantage_correlation
    if found is None:
        return []
    correlation, errors = found
    return [
        Evidence("correlation of Δ with the advantage", round(correlation, 3), "0"),
        Evidence("standard errors from 0", round(errors, 1), "3 at most"),
    ]


def _size_evidence(seen: Examination) -> list[Evidence]:
    return [
        Evidence("typical noise on the logits over the floor", round(seen.moved, 2), "up to 2"),
    ]


def stale(seen: Examination) -> Finding | None:
    lag = seen.signals.tokens.lag()
    lagging = lag is not None and bool((lag > 0).any())
    along = along_gradient(seen)
    small = seen.settings.trainer_dtype == "fp32" and seen.settings.rollout_dtype == "bf16"
    confidence = 0.92 * along * ramp(seen.moved, 1.0, 1.8)
    confidence = max(confidence, share(seen, "stale_engine_weights"))
    if lagging:
        confidence *= 0.3  # the versions say it: the lag is known and meant
    if small and seen.moved < 3.0:
        confidence *= 0.5
    if seen.settings.first_version:
        confidence *= 0.2
    if confidence < 0.05:
        return None
    return Finding(confidence, (*_gradient_evidence(seen), *_size_evidence(seen)))


def staleness(seen: Examination) -> Finding | None:
    """The rollouts' own versions say that they are older."""
    lag = seen.signals.tokens.lag()
    if lag is None or not (lag > 0).any():
        return None
    split = seen.places.by_label((lag > 0).astype(np.int64))
    by_lag = 0.0
    evidence = [
        Evidence("sequences from older weights", int((lag > 0).sum()), "0"),
        Evidence("largest lag, steps", int(lag.max()), "0"),
    ]
    if split is not None and (lag == 0).any():
        older = lag[seen.places.body.sequence[split.dirty]].mean()
        newer = lag[seen.places.body.sequence[~split.dirty]].mean()
        if older > newer:
            by_lag = 0.9 * ramp(split.contrast, 0.1, 0.3) * ramp(seen.accounts(split), 0.15, 0.4)
            evidence.append(
                Evidence(
                    "noise at the larger lags, nats",
                    float(f"{split.dirty_sigma:.3g}"),
                    f"{split.clean_sigma:.3g} at the smaller",
                )
            )
    along = 0.9 * along_gradient(seen) * ramp(seen.moved, 1.0, 1.8)
    plain = 0.65 * other_function(seen)
    confidence = max(by_lag, along, plain)
    if confidence < 0.05:
        return None
    return Finding(confidence, (*evidence, *_gradient_evidence(seen)))


def sub_ulp(seen: Examination) -> Finding | None:
    settings = seen.settings
    if settings.trainer_dtype != "fp32" or settings.rollout_dtype not in ("bf16", "fp16"):
        return None
    # The same tokens move the same way, as rounding never does.
    same = ramp(seen.signals.id_effect or 0.0, 3.0, 5.0)
    confidence = 0.85 * max(along_gradient(seen), 0.8 * same)
    confidence *= ramp(seen.signals.excess or 0.0, 3.5, 2.0)
    if settings.first_version:
        confidence *= 0.2
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            Evidence("dtypes", f"trainer fp32, engine {settings.rollout_dtype}", "equal"),
            Evidence(
                "variance of means per token id over noise",
                round(seen.signals.id_effect or 0.0, 2),
                "about 1",
            ),
            *_gradient_evidence(seen),
            *_size_evidence(seen),
        ),
    )


def dropped_tensor(seen: Examination) -> Finding | None:
    signals = seen.signals
    sure = signals.sure_ratio or 0.0
    confidence = share(seen, "dropped_tensor_on_reload")
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            *_size_evidence(seen),
            Evidence("|Δ| at p > 0.9 over that at p < 0.5", round(sure, 3), "0.05 to 0.10"),
            *_gradient_evidence(seen),
        ),
    )


def quantized(seen: Examination) -> Finding | None:
    """The shape of rounding, uniformly too large."""
    stated = seen.settings.quantization
    _, distance = seen.signals.mean_ratio
    shape = ramp(abs(distance), 8.0, 4.0) * seen.same_everywhere
    confidence = share(seen, "quantized_weights")
    if stated is not None:
        confidence = max(confidence, 0.9 * shape * ramp(seen.signals.excess or 0.0, 1.1, 1.8))
    if confidence < 0.05:
        return None
    evidence = _size_evidence(seen)
    sure = seen.signals.sure_ratio
    if sure is not None:
        evidence.append(
            Evidence(
                "|Δ| at p > 0.9 over that at p < 0.5",
                round(sure, 3),
                "0.05 to 0.10: the shape of rounding",
            )
        )
    if stated is not None:
        evidence.append(Evidence("metadata: quantization of the engine", stated, "none"))
    return Finding(confidence, tuple(evidence))


def _of_bf16(seen: Examination) -> float:
    """Noise in units of bf16's: a merge loses what bf16 weights cannot hold, whatever the dtypes
    of the two sides are."""
    floor = max(seen.floor.sigma, 0.5 * PRIOR_SIGMA["bf16"])
    return (seen.signals.typical_sigma or 0.0) / floor


def lora_not_applied(seen: Examination) -> Finding | None:
    adapter = seen.settings.adapter
    if adapter is None:
        return None
    confidence = max(
        share(seen, "lora_not_applied"),
        0.85 * other_function(seen) * ramp(_of_bf16(seen), 1.0, 2.5),
        seen.measured_weights * ramp(_of_bf16(seen), 1.0, 2.5),
    )
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            Evidence("metadata: adapter", adapter, "none"),
            *_size_evidence(seen),
            *_gradient_evidence(seen),
        ),
    )


def lora_merge(seen: Examination) -> Finding | None:
    adapter = seen.settings.adapter
    if adapter is None:
        return None
    confidence = max(
        0.8 * ramp(seen.moved, 1.0, 1.6) * ramp(_of_bf16(seen), 2.5, 1.0) * seen.same_everywhere,
        seen.measured_weights * ramp(_of_bf16(seen), 2.5, 1.0),
    )
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (Evidence("metadata: adapter", adapter, "none"), *_size_evidence(seen)),
    )


CAUSES = (
    Cause(
        name="stale_engine_weights",
        title="the engine still runs older weights",
        level="weights",
        mechanism="A weight sync did not happen or was not applied: the trainer has moved on along "
        "its own gradient.",
        signature="Δ is above 0 where the advantage was, below 0 where it was not; clean at step "
        "0, then growing with every step.",
        remedy="Check that update_weights ran and returned before generation; compare weight "
        "checksums of both sides after every sync.",
        next_control="Score the step with the weights of one, two and three steps ago: the right "
        "one brings Δ to the floor.",
        detect=stale,
        plot=noise_by_certainty,
        alike=ALIKE,
    ),
    Cause(
        name="policy_staleness",
        title="the rollouts are older than the weights that score them, as recorded",
        level="context",
        mechanism="Asynchronous training: behavior_version lags behind the trainer's step.",
        signature="Δ grows with the lag and is at the floor at lag 0.",
        remedy="Lower the allowed lag, or correct for it (truncated importance sampling).",
        next_control="Look at the sequences of lag 0 alone: they must be at the floor.",
        detect=staleness,
        plot=noise_by_sequence,
    ),
    Cause(
        name="sub_ulp_update",
        title="updates smaller than the engine's dtype can hold never reach it",
        level="weights",
        mechanism="The trainer keeps float32 weights, the engine gets them rounded to bf16: steps "
        "below its spacing round away.",
        signature="Dtypes differ, Δ barely above the floor but along the advantage; the engine's "
        "weights are exactly the rounded ones.",
        remedy="Train with bf16 weights and stochastic rounding or keep float32 weights in both; "
        "or raise the learning rate above the spacing.",
        next_control="Compare the engine's weights with the trainer's rounded to its dtype: equal "
        "bits mean that the sync works.",
        detect=sub_ulp,
        plot=noise_by_certainty,
    ),
    Cause(
        name="dropped_tensor_on_reload",
        title="a tensor was lost or left old in a reload",
        level="weights",
        mechanism="A name did not match, an alias or a buffer was not updated, a layout changed.",
        signature="A jump at one sync that stays; every token moves, also those the engine was "
        "sure of; not along the advantage.",
        remedy="Load strictly (no missing, no unexpected names), and compare a checksum per tensor "
        "after every reload.",
        next_control="Reload the same weights and compare the outputs: they must not change.",
        detect=dropped_tensor,
        plot=noise_by_certainty,
        alike=ALIKE,
    ),
    Cause(
        name="quantized_weights",
        title="the engine's weights are quantised, the trainer's are not",
        level="weights",
        mechanism="FP8, INT8 or INT4 weights in the engine, or another grid than the trainer's.",
        signature="The shape of rounding, the same everywhere, several times too large.",
        remedy="Roll out in the trainer's dtype, or train through the same quantisation (the same "
        "grid and block size).",
        next_control="Roll out once without quantisation: the difference falls to the floor.",
        detect=quantized,
        plot=noise_by_certainty,
        alike=ALIKE,
    ),
    Cause(
        name="lora_not_applied",
        title="the engine answers without the adapter, or with another scale",
        level="weights",
        mechanism="The adapter was not loaded, was reset by a wake-up, or alpha / r is read "
        "differently (rsLoRA).",
        signature="The engine equals the base model; the difference grows with the adapter.",
        remedy="Send lora_request with every call, check alpha / r, and compare with the merged "
        "model.",
        next_control="Score with the adapter switched off in the trainer: it then equals the "
        "engine.",
        detect=lora_not_applied,
        plot=noise_by_certainty,
        alike=ALIKE,
    ),
    Cause(
        name="lora_merge_rounding",
        title="the adapter is rounded away where it is merged into bf16 weights",
        level="weights",
        mechanism="bf16(W + BA) loses the small updates that base and adapter keep apart.",
        signature="LoRA runs only, a little above the floor, growing with training.",
        remedy="Merge in float32, or serve the adapter unmerged.",
        next_control="Serve the adapter unmerged once: the difference falls to the floor.",
        detect=lora_merge,
        plot=noise_by_certainty,
        alike=ALIKE,
    ),
    Cause(
        name="resume_mismatch",
        title="the difference is high for a few steps after a restart from a checkpoint",
        level="weights",
        mechanism="The engine starts from other weights than the trainer's checkpoint, or "
        "optimiser and engine states are restored one after the other.",
        signature="A jump at the first step after a resume that heals within a few steps.",
        remedy="Sync the restored weights into the engine before the first rollout, and leave out "
        "rollouts from before it.",
        next_control="Compare weight checksums of both sides right after the resume, before the "
        "first rollout.",
        detect=None,
        plot=noise_by_certainty,
    ),
    Cause(
        name="sleep_wake_corruption",
        title="the engine answers with something else since it was put to sleep and woken",
        level="weights",
        mechanism="Weights or buffers were dropped by sleep mode, FP8 KV scales reset to 1, or an "
        "adapter was not applied again after the wake-up.",
        signature="Clean until the first sleep, then far off and staying so.",
        remedy="Reload weights, buffers, scales and adapters after every wake-up, or use sleep "
        "level 1; update the engine.",
        next_control="Send one prompt before a sleep and after it: the answers must have the same "
        "bits.",
        detect=None,
        plot=noise_by_certainty,
    ),
)
