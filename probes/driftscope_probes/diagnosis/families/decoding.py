"""Decoding: single tokens that a chunk's border or a draft makes wrong.

In: an Examination. Out: findings on chunked prefills and speculative decoding.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.diagnosis.body import Ints
from driftscope_probes.diagnosis.cause import Evidence, Finding
from driftscope_probes.diagnosis.examination import Examination, ramp
from driftscope_probes.diagnosis.families.base import Cause
from driftscope_probes.diagnosis.plots import (
    noise_by_end,
    noise_by_position,
)

#: Prefills and log-softmaxes run in chunks of so many tokens; wild tokens that are looked at.
SMALLEST_CHUNK, LARGEST_CHUNK, MOST_WILD = 10, 4096, 256
#: Draft models propose up to so many tokens.
MOST_DRAFTED = 16
#: A round is the draft and one more token; longer periods are those of chunks.
LONGEST_ROUND = 9


#: One position shows no period: any fault of that position looks alike.
ONE_BORDER = 0.5


def _period(coordinate: Ints, wild: Ints) -> tuple[float, int, float, float, int] | None:
    """Surprise in nats, chunk, share, chance and number of borders of the chunk at whose borders
    most wild tokens lie: the first token of one (coordinate divisible by it) or the last.

    Surprise: -log of Chernoff's bound that so many fall there by chance, for all chunks tried.
    """
    shown = wild[:: max(1, wild.size // MOST_WILD)]
    chunks = np.arange(SMALLEST_CHUNK, min(LARGEST_CHUNK, int(coordinate.max()) + 1) + 1)
    if chunks.size == 0:
        return None
    residues = coordinate[shown][:, None] % chunks
    best: tuple[float, int, float, float, int] | None = None
    for edge in (residues == 0, residues == chunks - 1):
        shares = edge.mean(0)
        # Divisors of the chunk hold as many: of equal shares the largest says it.
        at = int(chunks.size - 1 - np.argmax(shares[::-1]))
        chunk, share = int(chunks[at]), float(shares[at])
        border = 0 if edge[:, at].any() and (residues[:, at] == 0).mean() == share else chunk - 1
        chance = float(np.clip(((coordinate % chunk) == border).mean(), 1e-4, 0.999))
        surprise = -float(np.log(2 * chunks.size))
        if share > chance:
            rest = (1 - share) * np.log((1 - share) / (1 - chance)) if share < 1 else 0.0
            surprise += shown.size * float(share * np.log(share / chance) + rest)
        if best is None or surprise > best[0]:
            borders = np.unique(coordinate[shown][edge[:, at]]).size
            best = (surprise, chunk, share, chance, borders)
    return best


def chunk_edges(seen: Examination) -> Finding | None:
    """Wild tokens at the borders of a chunk only."""
    body, places = seen.places.body, seen.places
    wild = places.wild
    count = int(wild.sum())
    if count < 3:
        return None
    best: tuple[float, int, float, float, int, str] | None = None
    for name, coordinate in (
        ("absolute position", places.positions),
        ("response index", body.index),
        ("token of the step", body.token),
    ):
        if coordinate is None:
            continue
        found = _period(coordinate, np.flatnonzero(wild))
        if found is not None and (best is None or found[0] > best[0]):
            best = (*found, name)
    if best is None:
        return None
    surprise, chunk, share, chance, borders, name = best
    confidence = (
        0.9 * ramp(surprise, 7.0, 16.0) * ramp(share, 0.5, 0.85) * ramp(seen.moved, 4.0, 2.0)
    )
    if borders == 1:
        confidence *= ONE_BORDER
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            Evidence(
                f"wild tokens where {name} is at the border of {chunk}",
                round(share, 2),
                f"{chance:.3f} by chance",
            ),
            Evidence("wild tokens", count, "few, anywhere"),
            Evidence("surprise of that by chance, nats", round(surprise, 1), "below 7"),
        ),
    )


def speculative(seen: Examination) -> Finding | None:
    """The last few tokens of sequences, or every k-th token: where drafts end."""
    body, places = seen.places.body, seen.places
    ends = places.ends
    by_end = 0.0
    evidence: list[Evidence] = []
    stated = seen.settings.speculative is not None
    if ends is not None and 2 <= ends.at <= MOST_DRAFTED:
        by_end = 0.88 * ramp(ends.contrast, 0.8, 1.6) * seen.clean(ends) * seen.leads(ends)
        evidence.append(Evidence("last tokens that differ", int(ends.at), "none"))
        evidence.append(
            Evidence("noise there over the rest", round(float(np.exp(ends.contrast)), 1), "1")
        )
    by_round = 0.0
    for period in range(2, LONGEST_ROUND + 1):
        split = places.by_token_label(body.index % period, float(period))
        if split is None:
            continue
        found = 0.88 * ramp(split.contrast, 0.7, 1.4) * seen.clean(split) * seen.leads(split)
        if found > by_round * 1.1:
            by_round = found
            evidence.append(
                Evidence(
                    f"noise at some places of every {period} tokens over the others",
                    round(float(np.exp(split.contrast)), 1),
                    "1",
                )
            )
    confidence = max(by_end, by_round)
    if stated:
        confidence = min(0.95, confidence * 1.1)
        evidence.append(Evidence("metadata: speculative decoding", "on", "off"))
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        tuple(evidence),
    )


CAUSES = (
    Cause(
        name="chunked_prompt_logprobs",
        title="tokens at the borders of prefill chunks are wrong",
        level="context",
        mechanism="prompt_logprobs of a chunked prefill are lost or taken from the neighbour where "
        "two chunks meet, or after a preemption.",
        signature="Single wild tokens at multiples of the chunk; all others at the floor.",
        remedy="Score with chunked prefill off (or max_num_batched_tokens above the longest "
        "sequence), or update the engine.",
        next_control="Score once with another chunk size: the wild tokens move with it.",
        detect=chunk_edges,
        plot=noise_by_position,
    ),
    Cause(
        name="spec_decode_logprobs",
        title="speculative decoding reports other log-probabilities",
        level="context",
        mechanism="Accepted drafts carry the draft model's values, or values near the end of the "
        "context are shifted.",
        signature="The last few tokens, or every k-th token, differ; all others are at the floor.",
        remedy="Switch speculative decoding off for rollouts, or update the engine.",
        next_control="Roll out once without speculative decoding.",
        detect=speculative,
        plot=noise_by_end,
    ),
)
