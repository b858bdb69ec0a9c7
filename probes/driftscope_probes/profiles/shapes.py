"""Shapes: what a profile looks like, in one sentence that its numbers bear out.

In: sums by a coordinate. Out: Shape. A jump, a rise or a group is only said where it is larger than
chance leaves, and a profile that another one explains says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

from driftscope_probes.diagnosis.places import SMALLEST_GAIN, SMALLEST_STATED_GAIN
from driftscope_probes.mismatch.number import IntArray
from driftscope_probes.profiles.coordinate_sums import CoordinateSums, Cut

Kind = Literal["even", "from", "up_to", "last", "grows", "labels"]
#: A part stands out when it differs twice as much: e^0.7.
CONTRAST: Final = 0.7
#: Groups in order of place whose sizes follow it so closely rise steadily; by this factor at least.
STEADY, RISE = 0.9, 2.0
#: One jump says as much as sixteen groups do: a border, no slow rise.
STEPWISE: Final = 0.85
#: A fault of the last tokens reaches back no further than this.
LAST_TOKENS: Final = 8
#: Another profile says more where it accounts for so much more.
SAYS_MORE: Final = 1.1
#: Equal places before the first difference that chance does not leave.
EQUAL_PLACES: Final = 12
#: Labels that are named.
NAMED: Final = 8

_NAMES: Final = {
    "index": ("index", "along the response"),
    "end": ("distance", "towards the end of responses"),
    "position": ("absolute position", "with the absolute position"),
}


@dataclass(frozen=True, slots=True)
class Shape:
    name: str  # of the profile
    kind: Kind
    gain: float  # χ² that it accounts for
    sentence: str
    at: int | None = None  # of a jump: its first or last coordinate

    @property
    def telling(self) -> bool:
        return self.kind != "even"

    def beside(self, leading: Shape | None) -> Shape:
        """With a word on the profile that accounts for more of it."""
        if leading is None or not self.telling or leading.name == self.name:
            return self
        if leading.gain < SAYS_MORE * self.gain:
            return self
        return replace(self, sentence=f"{_FOLLOWS[leading.name]} {self.sentence}")


_FOLLOWS: Final = {
    "index": "The place in the response says more.",
    "end": "What stands out here are the last tokens: the distance from the end says more.",
    "position": "The absolute position says more.",
    "turn": "The turn says more.",
    "rank": "The rank says more.",
    "replica": "The replica says more.",
    "environment": "The environment says more.",
}


def place_shape(name: str, sums: CoordinateSums, first_differing: IntArray, lowest: int) -> Shape:
    """first_differing: [sequences that differ] in this coordinate; empty: do not say.

    lowest: the smallest coordinate there is.
    """
    word, along = _NAMES[name]
    equal = _equal_before(word, first_differing, lowest)
    if name == "end":
        return _at_the_end(sums, along)
    jumps = [
        (kind, cut)
        for kind, cut in (("from", sums.run(rising=True)), ("up_to", sums.run(rising=False)))
        if cut is not None and _stands_out(cut, SMALLEST_GAIN)
    ]
    steady, gain, first, last = sums.rise()
    rises = steady > STEADY and last > RISE * first and gain > SMALLEST_GAIN
    if jumps:
        kind, cut = max(jumps, key=lambda one: one[1].gain)
        if not rises or cut.gain > STEPWISE * gain or equal:
            return _jump(name, kind, cut, word, equal)
    if rises:
        sentence = (
            f"Mean |Δ| grows {along}, from {_nats(first)} in the first sixteenth of the tokens to "
            f"{_nats(last)} in the last: what grows with the context (cache, attention, positions)."
        )
        return Shape(name, "grows", gain, sentence)
    return Shape(name, "even", 0.0, f"Even {along}: no place stands out.{equal}")


def _jump(name: str, kind: str, cut: Cut, word: str, equal: str) -> Shape:
    beside = f"mean |Δ| is {_nats(cut.inside)}, "
    if kind == "from":
        sentence = f"From {word} {cut.at} on {beside}before it {_nats(cut.outside)}.{equal}"
        return Shape(name, "from", cut.gain, sentence, cut.at)
    up_to = f"At {word} {cut.at}" if cut.at == 0 else f"Up to {word} {cut.at}"
    return Shape(
        name, "up_to", cut.gain, f"{up_to} {beside}after it {_nats(cut.outside)}.{equal}", cut.at
    )


def _at_the_end(sums: CoordinateSums, along: str) -> Shape:
    cut = sums.run(rising=False)
    if cut is None or cut.at > LAST_TOKENS or not _stands_out(cut, SMALLEST_GAIN):
        return Shape("end", "even", 0.0, f"Even {along}: the last tokens do not stand out.")
    which = "The last token of each response" if cut.at == 1 else f"The last {cut.at} tokens"
    sentence = (
        f"{which}: mean |Δ| is {_nats(cut.inside)} over {cut.inside_tokens:,}; "
        f"{_nats(cut.outside)} elsewhere."
    )
    return Shape("end", "last", cut.gain, sentence, cut.at)


def label_shape(name: str, sums: CoordinateSums) -> Shape:
    cut = sums.labels()
    if cut is None or cut.dirty is None or not _stands_out(cut, SMALLEST_STATED_GAIN):
        return Shape(name, "even", 0.0, f"No {name} stands out.")
    shown = ", ".join(map(str, cut.dirty[:NAMED])) + (", …" if len(cut.dirty) > NAMED else "")
    which = f"{name.capitalize()}{'' if len(cut.dirty) == 1 else 's'} {shown}"
    sentence = f"{which}: mean |Δ| is {_nats(cut.inside)}; {_nats(cut.outside)} in the others."
    return Shape(name, "labels", cut.gain, sentence)


def _stands_out(cut: Cut, least: float) -> bool:
    return cut.gain > least and cut.contrast > CONTRAST and cut.inside > cut.outside


def _equal_before(word: str, first: IntArray, lowest: int) -> str:
    """That no bit differs before a place, where chance does not leave that."""
    if not first.size or int(first.min()) - lowest < EQUAL_PLACES:
        return ""
    low, high = int(first.min()), int(first.max())
    over = "" if low == high else f" ({low} to {high} over the sequences)"
    return f" No bit differs before {word} {low}{over}."


def _nats(value: float) -> str:
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0 nats"
    return f"{value:,.0f} nats" if value >= 1000 else f"{value:.3g} nats"
