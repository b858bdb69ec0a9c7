"""Sampling notes: what settings of the sampling do to a comparison of log-probabilities.

In: settings, whoever states them: a probe's request or the metadata of a step. Out: sentences.
"""

from __future__ import annotations

from typing import Final

RENORMALISED = (
    "The engine's log-probabilities are renormalised over the tokens that top-p and top-k "
    "keep, the trainer's are not: the difference carries the logarithm of the mass kept, "
    "and is no measure of rounding. Set top-p 1 and top-k 0, or raw_logprobs."
)
NOT_OF_THE_DRAW = (
    "Tokens were drawn with temperature, top-p or top-k, but raw_logprobs are those of the "
    "unscaled model on both sides: comparable, yet not the probabilities of the draw. "
    "Importance ratios need processed_logprobs."
)
GREEDY = (
    "Greedy decoding picks likely tokens, whose log-probabilities differ least: expect a "
    "smaller gap than in sampling at temperature 1."
)
#: Rules of the lint that state the same facts of settings alone. Pushes and probes know how both
#: sides were scored, and give these notes instead.
SAID_BY_NOTES: Final[frozenset[str]] = frozenset(
    {"processed-logprobs-truncated", "sampling-truncated", "raw-logprobs-with-temperature"}
)


def sampling_notes(*, temperature: float, truncated: bool, processed: bool) -> list[str]:
    """Empty where both sides mean the same thing.

    truncated: top-p, top-k or min-p leave tokens out. processed: log-probabilities are taken after
    temperature and truncation.
    """
    notes = []
    if processed and truncated and temperature > 0.0:
        notes.append(RENORMALISED)
    if not processed and (truncated or temperature not in (0.0, 1.0)):
        notes.append(NOT_OF_THE_DRAW)
    if temperature == 0.0:
        notes.append(GREEDY)
    return notes
