"""Recorded weights: what a comparison of both sides' weights says, which was pushed with the step.

In: an Examination whose metadata hold `weights_digest`. Out: the cause that a difference proves,
and which causes equal weights exclude. No shape of the log-probabilities is surer than this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from driftscope_kernels.on_policy.weights.recorded import Kind, WeightsDigest
from driftscope_probes.diagnosis.cause import Evidence, Finding
from driftscope_probes.diagnosis.examination import Examination

CAUSES: Final[Mapping[Kind, str]] = {
    "stale": "stale_engine_weights",
    "tensor_not_sent": "dropped_tensor_on_reload",
    "tied_head_stale": "dropped_tensor_on_reload",
    "experts_stale": "dropped_tensor_on_reload",
    "adapter_not_merged": "lora_not_applied",
    "weights_lost": "sleep_wake_corruption",
    "unknown": "dropped_tensor_on_reload",
}
#: Digests were compared, not measured; of `unknown` only that they part is known.
PROVEN: Final = 0.97
PARTED: Final = 0.7
#: What proven weights leave of every other cause.
LEFT: Final = 0.1
#: These say that the engine holds other weights than the trainer.
ABOUT_WEIGHTS: Final = frozenset(
    {
        *("stale_engine_weights", "dropped_tensor_on_reload", "lora_not_applied"),
        *("resume_mismatch", "sleep_wake_corruption", "quantized_weights"),
    }
)
#: What equal digests leave of them where the engine does not show every tensor.
UNSEEN: Final = 0.3


def differing_weights(seen: Examination) -> WeightsDigest | None:
    """None where nothing was pushed, where they match, and where the rollouts are said to be older:
    then it is no fault that they differ."""
    found = seen.settings.weights_digest
    if found is None or found.matches:
        return None
    lag = seen.signals.tokens.lag()
    recorded = found.kind == "stale" and lag is not None and bool((lag > 0).any())
    return None if recorded else found


def weigh(seen: Examination, findings: dict[str, Finding]) -> dict[str, Finding]:
    """The findings of all detectors beside what is known of the weights."""
    digest = seen.settings.weights_digest
    if digest is None:
        return findings
    differing = differing_weights(seen)
    if differing is not None:
        name = CAUSES[differing.kind]
        others = {
            one: Finding(LEFT * found.confidence, found.evidence)
            for one, found in findings.items()
            if one != name
        }
        sure = PARTED if differing.kind == "unknown" else PROVEN
        return others | {name: Finding(sure, _evidence(differing))}
    if not digest.matches:
        return findings
    left = UNSEEN if digest.unseen_tensors else 0.0
    return {
        name: Finding(
            left * found.confidence if name in ABOUT_WEIGHTS else found.confidence, found.evidence
        )
        for name, found in findings.items()
        if left or name not in ABOUT_WEIGHTS
    }


def _evidence(digest: WeightsDigest) -> tuple[Evidence, ...]:
    found = [Evidence("digest of the engine", digest.engine, f"the trainer's: {digest.trainer}")]
    if digest.differing:
        shown = ", ".join(digest.differing)
        more = digest.differing_tensors - len(digest.differing)
        found.append(
            Evidence("tensors that differ", f"{shown}, {more} more" if more > 0 else shown, "none")
        )
    if digest.versions_behind is not None:
        found.append(
            Evidence("syncs since the engine's are the trainer's", digest.versions_behind, "0")
        )
    if digest.function_diff is not None:
        found.append(
            Evidence("largest |Δ| of known tokens, nats", digest.function_diff, "at the floor")
        )
    return tuple(found)
