"""Parts of an explanation in words, the same in the terminal and on pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, cast

from driftscope_kernels.compare_ops.reasons import REASONS, ROUNDING, Reason
from driftscope_probes.explain.report import First, Growth, InputEvidence, Op, Way
from driftscope_probes.explain.sites import KIND_LABELS, Kind
from driftscope_probes.plural import noun
from driftscope_service.numbers.metric_words import number, share
from driftscope_service.pages.words import Tone

OUTSIDE: Final = "outside layers"
#: What an op was given there. In a run of both sides that is always equal.
INPUTS: Final[Mapping[InputEvidence, str]] = {
    "equal": "",
    "different": "; its inputs differ too",
    "unknown": "; whether its inputs are equal was not captured",
}


def reason_label(reason: str) -> str:
    """A reason of a newer version is shown as it is."""
    return REASONS.get(cast(Reason, reason), reason)


def reason_tone(reason: str) -> Tone:
    """Rounding is no fault; what nothing explains may be one."""
    if reason in ROUNDING or reason == "input_only":
        return "none"
    return "watch" if reason == "unknown" else "bad"


def op_label(kind: str) -> str:
    """Likewise."""
    return KIND_LABELS.get(cast(Kind, kind), kind)


def layers_text(layers: Sequence[int]) -> str:
    """ "0–29", "0, 2–4"; no layer: outside layers."""
    return ", ".join(_ranges(sorted(set(layers)))) or OUTSIDE


def _ranges(layers: Sequence[int]) -> Iterator[str]:
    begin = 0
    for index, (layer, after) in enumerate(pairwise([*layers, -1]), start=1):
        if after != layer + 1:
            first = layers[begin]
            yield f"{first}" if first == layer else f"{first}–{layer}"
            begin = index


def of_layers(layers: Sequence[int]) -> str:
    """As a reader says it: "layers 0–29", "layer 4"."""
    text = layers_text(layers)
    return f"{noun(len(set(layers)), 'layer')} {text}" if layers else text


def first_words(first: First) -> str:
    """Where it is, and both values."""
    layer = "" if first.layer is None else f"layer {first.layer} "
    ulp = "" if first.ulp is None else f", {number(first.ulp)} ULP apart"
    return (
        f"{layer}{first.site}, token {first.token} (sequence {first.sequence}, position "
        f"{first.position}), feature {first.feature}: engine {first.engine:.9g}, trainer "
        f"{first.trainer:.9g}{ulp}{INPUTS[first.inputs]}"
    )


def way_words(way: Way) -> str:
    """What one side does, as far as a named way equals it."""
    if way.variant is not None:
        return way.says or way.variant
    if way.nearest is None:
        return "no named way was compared"
    return f"no named way equals it; nearest is {way.nearest}, {share(way.equal)} of the elements"


def closer_sentence(ops: Sequence[Op]) -> str | None:
    """Which side carries the error, op by op; None where no op differs."""
    parts = []
    for side, words in (
        ("engine", "the engine is closer in"),
        ("trainer", "the trainer is closer in"),
        ("equal", "both are as close in"),
    ):
        named = dict.fromkeys(op.label for op in ops if op.closer_to_float64 == side)
        if named:
            parts.append(f"{words} {', '.join(named)}")
    return f"Against float64, {'; '.join(parts)}." if parts else None


def growth_words(growth: Sequence[Growth]) -> str | None:
    """Where the difference of the residual stream begins, what it comes to, what amplifies it."""
    seen = [one for one in growth if one.relative_difference > 0]
    if not seen:
        return None
    first, last = seen[0], seen[-1]
    told = f"It begins at {_place(first)} with {number(first.relative_difference)}"
    if last is not first:
        told += f" and is {number(last.relative_difference)} at {_place(last)}"
    amplified = [one for one in seen if one.amplification is not None]
    if amplified:
        most = max(amplified, key=lambda one: one.amplification or 0.0)
        told += f"; {_place(most)} amplifies it most, {number(most.amplification or 0.0)} times"
    return f"{told}."


def _place(one: Growth) -> str:
    return "the end" if one.layer is None else f"layer {one.layer}"
