"""Caches: what the engine kept from before, or keeps in few bits.

In: an Examination. Out: findings on prefix caches, KV dtypes, chunks and speculative decoding.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.diagnosis.cause import Evidence, Finding
from driftscope_probes.diagnosis.examination import SURPRISE_OF_ONSET, Examination, ramp
from driftscope_probes.diagnosis.families.base import Cause
from driftscope_probes.diagnosis.families.batching import by_label
from driftscope_probes.diagnosis.places import Split, typical
from driftscope_probes.diagnosis.plots import (
    noise_by_end,
    noise_by_index,
    noise_by_position,
    noise_by_sequence,
)
from driftscope_probes.diagnosis.signals import Ints

#: Prefills and log-softmaxes run in chunks of so many tokens; wild tokens that are looked at.
SMALLEST_CHUNK, LARGEST_CHUNK, MOST_WILD = 10, 4096, 256
#: Tiles of attention kernels over the keys.
TILES = (32, 48, 64, 80, 96, 112, 128, 160, 176, 192, 224, 256, 512)
#: An onset below it is that of decoding, not of a tile.
SMALLEST_TILE = 8
#: Tokens before and after an onset that show how sharp it is.
AROUND = 8
#: Draft models propose up to so many tokens.
MOST_DRAFTED = 16
#: A round is the draft and one more token; longer periods are those of chunks.
LONGEST_ROUND = 9


def stale_prefix(seen: Examination) -> Finding | None:
    cached = seen.signals.extras.cached_tokens
    if cached is not None:
        found = by_label(
            seen, (cached > 0).astype(np.int64), "cached (1) or not (0): those", "a cache hit"
        )
        if found is None:
            return None
        hit = int((cached > 0).sum())
        return Finding(
            found.confidence,
            (Evidence("sequences with a cached prefix", hit, "no effect"), *found.evidence),
        )
    split = seen.places.two_groups
    if split is None:
        return None
    # Without the label: two groups without an order, from the first token on.
    places = seen.places
    ordered = max(
        seen.accounts(places.block) if places.dirty_runs <= 1 else 0.0,
        seen.accounts(places.periodic),
    )
    body = seen.places.body
    early = split.dirty & (body.index < 4)
    rest = ~split.dirty & (body.index < 4)
    at_once = typical(body.residual[early]) / max(typical(body.residual[rest]), 1e-12)
    confidence = (
        0.65
        * ramp(split.contrast, 1.0, 1.8)
        * ramp(ordered, 0.8, 0.5)
        * seen.clean(split)
        * seen.two_kinds
        * seen.same_token
        * seen.unlabelled
        * ramp(at_once, 1.5, 4.0)
        # What another prompt does to later tokens an older cache does not.
        * ramp(typical(body.residual[split.dirty & (body.index >= 4)]), 1.6, 1.0)
    )
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            Evidence(
                "sequences in two groups; in the worse one", int(places.dirty_sequences.sum()), "0"
            ),
            Evidence("noise there over the others'", round(float(np.exp(split.contrast)), 1), "1"),
            Evidence("on their first four tokens", round(at_once, 1), "1"),
        ),
    )


def hybrid_version(seen: Examination) -> Finding | None:
    """High up to a token, lower after it: the weights changed while the cache stayed."""
    places, body = seen.places, seen.places.body
    own = places.own_falls
    if own is None:
        return None
    split, cuts = own
    sequences = np.unique(body.sequence).size
    dirty = max(1, int(places.dirty_sequences.sum()))
    fallen = cuts.size / (dirty if places.two_groups is not None else sequences)
    after = np.zeros(body.tokens, np.bool_)
    after[np.minimum(cuts[:, None] + np.arange(AROUND), body.tokens - 1)] = True
    rest = typical(body.residual[after]) / seen.floor.sigma
    lag = seen.signals.extras.lag()
    mixed = lag is not None and np.unique(lag).size > 1
    # All at one index, or all at few: an update hits every running request at one moment.
    common = places.falling
    shared = 0.0 if common is None else common.gain / max(places.best_gain, 1e-9)
    confidence = (
        (0.85 if mixed else 0.75)
        * ramp(split.contrast, 0.7, 1.4)
        * max(ramp(fallen, 0.25, 0.5), ramp(shared, 0.6, 0.9))
        * ramp(cuts.size, 1, 4)
        * ramp(split.dirty_sigma / seen.floor.sigma, 2.0, 3.5)
        * seen.same_token
    )
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            Evidence("responses in which the difference falls at a token", int(cuts.size), "0"),
            Evidence("that token, median index", int(np.median(body.index[cuts])), "none"),
            Evidence("noise before over after", round(float(np.exp(split.contrast)), 1), "1"),
            Evidence(
                "noise after it over the floor",
                round(rest, 1),
                "1; the cache still holds the older weights' keys",
            ),
        ),
    )


def _sharp_onset(seen: Examination) -> tuple[Split, int, float, bool] | None:
    """The onset, by absolute position where it is known, its sharpness 0 to 1, and which it is."""
    body, places = seen.places.body, seen.places
    split, coordinate, absolute = places.onset_position, seen.places.positions, True
    if split is None or (places.onset is not None and places.onset.gain > 1.05 * split.gain):
        split, coordinate, absolute = places.onset, body.index, False
    if split is None or coordinate is None:
        return None
    cut = int(split.at)
    before = (coordinate < cut) & (coordinate >= cut - AROUND)
    after = (coordinate >= cut) & (coordinate < cut + AROUND)
    if before.sum() < 6 or after.sum() < 6:
        return None
    jump = float(body.size[after].mean() - body.size[before].mean())
    return split, cut, float(np.clip(jump / split.contrast, 0.0, 1.0)), absolute


def kv_tile(seen: Examination) -> Finding | None:
    exact = seen.places.exact_onset
    if exact is not None and exact[0] >= SMALLEST_TILE:
        confidence = 0.93 * ramp(exact[1], *SURPRISE_OF_ONSET)
        if confidence > 0.5:
            return _tile_finding(
                confidence,
                exact[0],
                "absolute position",
                (
                    Evidence("tokens before it that differ in any bit", 0, "as many as after it"),
                    Evidence("surprise of that by chance, nats", round(exact[1], 1), "below 12"),
                ),
            )
    onset = _sharp_onset(seen)
    if onset is None:
        return None
    split, cut, sharp, absolute = onset
    if cut < SMALLEST_TILE:
        return None
    turns = seen.places.by_turn
    if turns is not None and turns.gain > 0.8 * split.gain:
        return None  # a turn begins there
    distance = min(abs(cut - tile) for tile in TILES)
    coordinate = seen.places.positions if absolute else seen.places.body.index
    assert coordinate is not None
    confidence = (
        (0.93 if absolute else 0.8)
        * ramp(split.contrast, 0.5, 1.2)
        * max(seen.flat_after(split, coordinate), ramp(sharp, 0.8, 0.95))
        * ramp(sharp, 0.5, 0.8)
        * seen.leads(split)
        * seen.clean(split)
        * (1.0 if distance <= 4 else 0.75)
        * seen.same_token
    )
    if confidence < 0.05:
        return None
    what = "absolute position" if absolute else "response index"
    return _tile_finding(
        confidence,
        cut,
        what,
        (
            Evidence("noise from it on over before", round(float(np.exp(split.contrast)), 1), "1"),
            Evidence("of that, within 8 tokens", round(sharp, 2), "a slow rise stays below 0.3"),
        ),
    )


def _tile_finding(
    confidence: float, cut: int, what: str, evidence: tuple[Evidence, ...]
) -> Finding:
    nearest = min(TILES, key=lambda tile: abs(tile - cut))
    return Finding(
        confidence,
        (
            Evidence(
                f"first {what} that differs, in all sequences",
                cut,
                f"none; nearest tile of a kernel: {nearest}",
            ),
            *evidence,
        ),
    )


def kv_scales(seen: Examination) -> Finding | None:
    """Decoded tokens read the cache, the first one did not; or metadata say an FP8 cache."""
    body = seen.places.body
    stated = (seen.settings.kv_cache_dtype or "").startswith(("fp8", "int8"))
    first = body.index == 0
    if first.sum() < 4 or (~first).sum() < 16:
        return None
    second = (body.index >= 1) & (body.index < 5)
    jump = float(body.size[second].mean() - body.size[first].mean())
    # Responses to one prompt begin in one context: only different ones count as draws.
    draws = np.unique(body.rollout[first]).size
    error = float(np.sqrt(1.3 / draws + 1.3 / max(1, second.sum())))
    later = body.index >= 5
    onset = seen.places.onset
    flat = abs(float(body.size[later].mean() - body.size[second].mean())) if later.any() else 0.0
    clean = typical(body.residual[first]) / seen.floor.sigma
    by_data = (
        0.7
        * ramp(jump / error, 3.5, 6.0)
        * ramp(jump, 0.7, 1.4)
        * ramp(clean, 3.5, 1.5)
        * ramp(seen.moved, 1.5, 3.0)
        * ramp(flat / max(jump, 1e-9), 0.6, 0.3)
        * (1.0 if onset is None else seen.leads(onset))
    )
    by_word = 0.85 * ramp(seen.moved, 1.5, 3.0) * seen.same_everywhere if stated else 0.0
    confidence = max(by_data, by_word)
    if confidence < 0.05:
        return None
    evidence = [
        Evidence("noise of first response tokens over the floor", round(clean, 2), "1"),
        Evidence("noise of the next four over theirs", round(float(np.exp(jump)), 1), "1"),
    ]
    if stated:
        evidence.append(
            Evidence("metadata: kv_cache_dtype", seen.settings.kv_cache_dtype or "", "bf16")
        )
    return Finding(confidence, tuple(evidence))


def _period(coordinate: Ints, wild: Ints) -> tuple[float, int, float, float] | None:
    """Surprise in nats, chunk, share and chance of the chunk at whose borders most wild tokens
    lie: the first token of one (coordinate divisible by it) or the last.

    Surprise: -log of Chernoff's bound that so many fall there by chance, for all chunks tried.
    """
    shown = wild[:: max(1, wild.size // MOST_WILD)]
    chunks = np.arange(SMALLEST_CHUNK, min(LARGEST_CHUNK, int(coordinate.max()) + 1) + 1)
    if chunks.size == 0:
        return None
    residues = coordinate[shown][:, None] % chunks
    best: tuple[float, int, float, float] | None = None
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
            best = (surprise, chunk, share, chance)
    return best


def chunk_edges(seen: Examination) -> Finding | None:
    """Wild tokens at the borders of a chunk only."""
    body, places = seen.places.body, seen.places
    wild = places.wild
    count = int(wild.sum())
    if count < 3:
        return None
    best: tuple[float, int, float, float, str] | None = None
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
    surprise, chunk, share, chance, name = best
    confidence = (
        0.9 * ramp(surprise, 7.0, 16.0) * ramp(share, 0.5, 0.85) * ramp(seen.moved, 4.0, 2.0)
    )
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
        name="stale_prefix_cache",
        title="cached prefixes were computed with older weights",
        level="context",
        mechanism="The prefix cache outlived a weight update: prompts that hit it are answered "
        "from the keys and values of the old weights.",
        signature="Sequences in two groups; those with a cached prefix differ from their first "
        "token on, the others are at the floor.",
        remedy="Reset the prefix cache after every weight update (reset_prefix_cache) or switch it "
        "off for rollouts.",
        next_control="Roll out the same prompts with enable_prefix_caching=False.",
        detect=stale_prefix,
        plot=noise_by_sequence,
    ),
    Cause(
        name="hybrid_version_kv",
        title="weights changed in mid-response while the cache kept the older keys",
        level="context",
        mechanism="An in-flight update: tokens before it come from the older weights, later ones "
        "from new weights on an old cache.",
        signature="The difference falls at one token of each response and stays above the floor "
        "after it.",
        remedy="Recompute the cache of running requests at a sync, or record the weight version "
        "per token and leave out mixed ones.",
        next_control="Pause generation during the sync once: responses without a change of weights "
        "are clean.",
        detect=hybrid_version,
        plot=noise_by_index,
    ),
    Cause(
        name="fp8_kv_tile",
        title="the engine's attention differs from one position on",
        level="context",
        mechanism="A kernel handles the keys of its second tile another way (FP8 cache, FA3 with "
        "tiles of 96).",
        signature="At the floor up to one absolute position, the same in all sequences; above it "
        "from there on.",
        remedy="Keep the KV cache in bf16, or use another attention backend.",
        next_control="Roll out once with kv_cache_dtype=auto: the onset disappears.",
        detect=kv_tile,
        plot=noise_by_position,
    ),
    Cause(
        name="fp8_kv_scales",
        title="the KV cache is kept in few bits without calibrated scales",
        level="context",
        mechanism="FP8 keys and values with scale 1: decoding reads rounded ones, the trainer does "
        "not.",
        signature="The first response token (prefill) is clean, all decoded ones differ alike.",
        remedy="Calibrate the scales (calculate_kv_scales) or keep the KV cache in bf16.",
        next_control="Roll out once with kv_cache_dtype=auto.",
        detect=kv_scales,
        plot=noise_by_index,
    ),
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
