"""Log-probabilities as a server's JSON holds them: what stands for a number that JSON has not.

In: the list that a server sent, and whose it is. Out: numbers with NaN and −inf in their places,
and where these were: they are counted as not finite, and the report names them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from driftscope_probes.errors import EngineError

#: vLLM's servers send max(logprob, −9999.0), since JSON has no infinity (vLLM, entrypoints/openai:
#: serving_completion.py, "token_logprobs"). No float32 log-softmax reaches it: the smallest finite
#: difference of logits that a model makes is some hundreds of nats.
JSON_FLOOR: Final = -9999.0
#: Of a trace's settings: the gaps of its server, as JSON.
SENT_NOT_FINITE: Final = "sent_not_finite"
#: So many are named one by one; the rest is counted.
NAMED: Final = 3

What = Literal["null", "floor", "not finite"]
_WORDS: Final[dict[What, tuple[str, str]]] = {
    "null": ("null", "read as NaN"),
    "floor": (f"{JSON_FLOOR} (what vLLM's JSON holds for -inf)", "read as -inf"),
    "not finite": ("NaN or an infinity", "taken as sent"),
}


@dataclass(frozen=True, slots=True)
class Gap:
    """One log-probability that is not a finite number."""

    what: What
    sequence: str  # whose: "prompt 3"
    index: int  # of the response's tokens, from 0

    def to_dict(self) -> dict[str, Any]:
        return {"what": self.what, "sequence": self.sequence, "index": self.index}

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> Gap:
        return Gap(**fields)


@dataclass(frozen=True, slots=True)
class SentLogprobs:
    values: tuple[float, ...]  # nats; NaN for null, −inf for vLLM's floor
    gaps: tuple[Gap, ...]  # where `values` is not finite


def read_logprobs(sent: Sequence[object], sequence: str) -> SentLogprobs:
    """Raises EngineError for what is neither a number nor null."""
    values: list[float] = []
    gaps: list[Gap] = []
    for index, value in enumerate(sent):
        number, what = _read(value, sequence, index)
        values.append(number)
        if what is not None:
            gaps.append(Gap(what, sequence, index))
    return SentLogprobs(tuple(values), tuple(gaps))


def _read(value: object, sequence: str, index: int) -> tuple[float, What | None]:
    if value is None:
        return math.nan, "null"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EngineError(
            f"the server sent {str(value)[:80]!r} as the log-probability of token {index} of "
            f"{sequence}; a number or null is read.",
            remedy="use a server that answers as vLLM's completions API does.",
        )
    if value == JSON_FLOOR:
        return -math.inf, "floor"
    return float(value), None if math.isfinite(value) else "not finite"


def gap_sentences(gaps: Iterable[Gap]) -> list[str]:
    """One sentence per kind: what was sent, how often, where first, how it was read."""
    found = list(gaps)
    sentences = []
    for what, (sent, read) in _WORDS.items():
        places = [f"{gap.sequence}, token {gap.index}" for gap in found if gap.what == what]
        if not places:
            continue
        more = f"; and {len(places) - NAMED} more" if len(places) > NAMED else ""
        times = "once" if len(places) == 1 else f"{len(places)} times"
        sentences.append(
            f"The server sent {sent} as a log-probability {times}: "
            f"{'; '.join(places[:NAMED])}{more}. It was {read} and counts as not finite."
        )
    return sentences
