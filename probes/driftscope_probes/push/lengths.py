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
        f"{len(lengths)}), {other} has {expected[first]}. {len(off)} of {len(lengths)} sequences "
        f"{'differs' if len(off) == 1 else 'differ'}"
    )
    if len({by for _, by in off}) > 1:
        least, most = min(by for _, by in off), max(by for _, by in off)
        message += f", by {least:+d} to {most:+d}."
        why = f"usually it is {RETOKENISED}: score the token ids that the engine returned."
    else:
        each = "every sequence has" if len(off) == len(lengths) else "each has"
        message += f": {each} {_more(name, other, difference)}."
        why = f"usually it is {STOP_TOKEN}, a response cut short, or else {RETOKENISED}."
    return LengthsFault(message, f"{why} Give both sides one value for each of the same tokens.")


def _more(name: str, other: str, difference: int) -> str:
    count = "one" if abs(difference) == 1 else str(abs(difference))
    longer = name if difference > 0 else other
    side = longer.removesuffix("_logprobs")
    return f"{count} more on the {side} side" if side != longer else f"{count} more in {longer}"
