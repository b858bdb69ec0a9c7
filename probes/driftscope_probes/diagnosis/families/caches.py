"""Caches: what the engine kept from before, or keeps in few bits.

In: an Examination. Out: findings on prefix caches, changes of weights below one, and
KV dtypes.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.diagnosis.body import typical
from driftscope_probes.diagnosis.cause import Evidence, Finding
from driftscope_probes.diagnosis.examination import SURPRISE_OF_ONSET, Examination, ramp
from driftscope_probes.diagnosis.families.base import Cause
from driftscope_probes.diagnosis.families.workers import by_label
from driftscope_probes.diagnosis.plots import (
    noise_by_index,
    noise_by_position,
    noise_by_sequence,
)
from driftscope_probes.diagnosis.split import Split

#: Tiles of attention kernels over the keys.
TILES = (32, 48, 64, 80, 96, 112, 128, 160, 176, 192, 224, 256, 512)
#: An onset below it is that of decoding, not of a tile.
SMALLEST_TILE = 8
#: Tokens before and after an onset that show how sharp it is.
AROUND = 8


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
    tokens = seen.signals.tokens
    lags = tokens.lag() if (within := tokens.token_lag()) is None else within[tokens.takes_part]
    mixed = lags is not None and np.unique(lags).size > 1
    # All at one index, or all at few: an update hits every running request at one moment.
    common = places.falling
    shared = 0.0 if common is None else common.gain / max(places.best_gain, 1e-9)
    confidence = (
        (0.85 if mixed else 0.75)
        * ramp(split.contrast, 0.7, 1.4)
        * max(ramp(fallen, 0.25, 0.5), ramp(shared, 0.6, 0.9))
        * ramp(cuts.size, 1, 4)
        * ramp(split.dirty_sigma / seen.floor.sigma, 2.0, 3.5)
        # What is left after the update is more than rounding; where it is not, the context faded.
        * ramp(rest, 1.1, 1.6)
        * ramp(float(np.median(body.index[cuts])), 3.0, 6.0)
        * seen.unlabelled
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
)
