"""The answer in words: one sentence on what makes the gap, and what to change. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from driftscope_kernels.compare_ops.reasons import REASONS, ROUNDING
from driftscope_probes.explain.report import Parts

#: What helps against each reason. Rounding is no bug: it goes away where both sides compute alike.
REMEDIES: Final[Mapping[str, str]] = {
    "weight": "compare the weights that the engine holds with the trainer's after the last sync; "
    "load or send again those that differ.",
    "formula": "give both sides the same number or formula; it is named above.",
    "mask": "give both sides the same mask and window.",
    "position": "give both sides the same rotary base, scaling and positions.",
    "cache": "look at the layout and dtype of the key-value cache.",
    "randomness": "turn dropout off on the side that scores.",
    "unknown": "look at the op itself: it differs by more than rounding, in no way that is named.",
}
ROUNDING_REMEDY: Final = (
    "nothing is broken: run both sides with the same kernels (--kernels invariant makes the gap "
    "zero), use fp16 instead of bf16 (about an eighth of the gap), or correct for it "
    "(importance sampling)."
)


#: By the words of a stored report, which may be another version's.
_LABELS: Final[Mapping[str, str]] = {str(name): label for name, label in REASONS.items()}


def sentence_of(parts: Parts) -> str:
    gap = parts.gap
    if parts.verdict == "not_comparable":
        return " ".join(parts.notes[:1])
    assert gap is not None, "sides that can be compared have a gap"
    if parts.verdict == "equal":
        return (
            f"Every op is bitwise equal on equal inputs, and so are the log-probabilities of all "
            f"{gap.tokens:,} tokens."
        )
    size = f"mean |Δ| is {gap.abs_diff_mean:.3g} nats"
    if not parts.ops:
        return (
            f"{size[0].upper()}{size[1:]} although every op that is seen is equal on equal inputs."
        )
    if parts.verdict == "fault":
        faults = [op for op in parts.ops if op.reason not in ROUNDING or op.beyond_tolerance]
        first = parts.first
        where = "" if first is None else f" first at {_where(first.layer, first.site)}"
        return f"{faults[0].why[:-1]},{where}; {size}."
    named = _list([f"{op.label} ({_LABELS.get(op.reason, op.reason)})" for op in parts.ops])
    made = "make" if len(parts.ops) > 1 else "makes"
    verified = parts.verified
    told = "" if verified is None else f" {verified.sentence}"
    if parts.verdict == "rounding":
        return f"Rounding: {named} {made} the whole gap; {size}.{told}"
    return f"{named[0].upper()}{named[1:]} differ on equal inputs; {size}.{told}"


def remedy_of(parts: Parts) -> str | None:
    if parts.verdict == "equal":
        return None
    if parts.verdict == "not_comparable":
        return parts.notes[1] if len(parts.notes) > 1 else None
    if parts.verdict == "rounding":
        return ROUNDING_REMEDY
    faults = [op for op in parts.ops if op.reason not in ROUNDING or op.beyond_tolerance]
    return REMEDIES.get(faults[0].reason, REMEDIES["unknown"]) if faults else None


def _where(layer: int | None, site: str) -> str:
    return site if layer is None else f"layer {layer}, {site}"


def _list(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
