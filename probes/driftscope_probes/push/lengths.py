"""Two columns that are cut into sequences of other lengths: which, by how much, and the usual why.

The client says the same (service/driftscope_client/lengths.py): it is installed without the probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STOP_TOKEN = "a stop token that one side counts and the other does not"
RETOKENISED = "text that was tokenised again between the sides"


@dataclass(frozen=True, slots=True)
class LengthsFault:
    message: str
    remedy: str


def lengths_fault(
    name: str, lengths: Sequence[int], other: str, expected: Sequence[int]
) -> LengthsFault | None:
    """None where they agree. `lengths`: tokens of each sequence in the column `name`."""
    if len(lengths) != len(expected):
        return LengthsFault(
            f"{name} has {len(lengths)} sequences, {other} has {len(expected)}.",
            f"give {name} one entry for every sequence of {other}, in the same order.",
        )
    pairs = zip(lengths, expected, strict=True)
    off = [(index, own - others) for index, (own, others) in enumerate(pairs) if own != others]
    if not off:
        return None
    first, difference = off[0]
    message = (
        f"{name} has {lengths[first]} tokens in sequence {first} (number {first + 1} of "
        f"{len(lengths)}), {other} has {expected[first]}; "
    )
    if len(off) == 1:
        message += "all others agree."
        why = f"look at that sequence: {STOP_TOKEN}, a response cut short, or {RETOKENISED}."
    elif len({by for _, by in off}) > 1:
        least, most = min(by for _, by in off), max(by for _, by in off)
        message += f"{len(off)} of {len(lengths)} sequences differ, by {least:+d} to {most:+d}."
        why = f"usually it is {RETOKENISED}: score the token ids that the engine returned."
    else:
        which = "every sequence has" if len(off) == len(lengths) else f"{len(off)} sequences have"
        more = f"{_count(abs(difference))} {'more' if difference > 0 else 'fewer'}"
        message += f"{which} {more} in {name}."
        why = f"usually it is {STOP_TOKEN}, or else {RETOKENISED}: leave it out or score it."
    return LengthsFault(message, f"{why} Both sides need one value for each of the same tokens.")


def _count(number: int) -> str:
    return "one" if number == 1 else str(number)
