"""Batching: the fault depends on which other sequences shared the batch.

In: an Examination. Out: findings on padding and packing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.body import Bools
from driftscope_probes.diagnosis.cause import Evidence, Finding
from driftscope_probes.diagnosis.examination import Examination, ramp
from driftscope_probes.diagnosis.families.base import Cause
from driftscope_probes.diagnosis.plots import noise_by_length, noise_by_sequence
from driftscope_probes.diagnosis.split import Split

FEW_SEQUENCES = 4


def pad_attended(seen: Examination) -> Finding | None:
    """The error follows how much padding a sequence needs; the longest needs none."""
    signals = seen.signals
    lengths = signals.response_lengths
    candidates = {"response": lengths}
    prompts = signals.extras.prompt_lengths
    if prompts is None and signals.extras.position_ids is not None:
        prompts = _first_positions(seen)
    if prompts is not None:
        candidates["prompt"] = prompts.astype(np.int64)
        candidates["prompt and response"] = prompts + lengths
    counts = np.bincount(seen.places.body.sequence, minlength=signals.tokens.sequences)
    present = np.flatnonzero(counts >= 2)
    if present.size < FEW_SEQUENCES:
        return None
    size = np.bincount(seen.places.body.sequence, seen.places.body.size, signals.tokens.sequences)
    mean = size[present] / counts[present]
    best: tuple[float, str, float, float, NDArray[Any]] | None = None
    for name, length in candidates.items():
        padding = (length[present].max() - length[present]).astype(np.float64)
        if np.ptp(padding) == 0:
            continue
        # Most of the effect is that there is padding at all: its logarithm.
        related = float(np.corrcoef(np.log1p(padding), mean)[0, 1]) if np.ptp(mean) else 0.0
        none = padding == 0
        # Once there is any, more of it may change little: then none against some is the test.
        any_padding = np.zeros(signals.tokens.sequences, np.int64)
        any_padding[present[padding > 0]] = 1
        split = seen.places.by_label(any_padding)
        if split is not None and 0 < any_padding.sum() < present.size:
            related = max(related, 0.9 * seen.accounts(split))
        clean = float(np.exp(np.median(mean[none]))) / seen.floor.sigma
        if best is None or related > best[0]:
            best = (related, name, clean, float(np.median(np.exp(mean[~none]))), padding)
    if best is None:
        return None
    related, name, clean, dirty, padding = best
    confidence = (
        0.9
        * ramp(related, 0.45, 0.75)
        * ramp(clean, 3.0, 1.5)
        * ramp(dirty / seen.floor.sigma / max(clean, 0.1), 1.5, 3.0)
        * ramp(present.size, 3, 8)
        * seen.same_token
        * seen.unlabelled
    )
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            Evidence(
                f"correlation of a sequence's noise with the padding of its {name}",
                round(related, 2),
                "about 0",
            ),
            Evidence("noise of the longest over the floor", round(clean, 2), "1"),
            Evidence("noise of all others over the floor", round(dirty / seen.floor.sigma, 1), "1"),
        ),
    )


def _first_positions(seen: Examination) -> NDArray[np.int64]:
    """[sequences] position of the first response token, 0 where there is none."""
    first, _ = seen.signals.first_and_last
    ids = seen.signals.extras.position_ids
    assert ids is not None
    positions: NDArray[np.int64] = ids[np.minimum(first, ids.size - 1)].astype(np.int64)
    return positions


def _first_of_packs(clean: Bools, lengths: NDArray[np.int64]) -> float:
    """How well the clean sequences are those that open a pack: 0 to 1.

    Packs of a fixed number of sequences open at even distances; packs filled up to a capacity
    close when the next one would not fit.
    """
    opens = np.flatnonzero(clean)
    if opens.size == 0 or opens[0] != 0 or clean.all():
        return 0.0
    if opens.size == 1:
        return ramp(clean.size, 4, 10)
    gaps = np.diff(opens)
    even = float((gaps == np.median(gaps)).mean()) if np.median(gaps) > 1 else 0.0
    total = np.concatenate([[0], np.cumsum(lengths)])
    filled = np.diff(total[np.append(opens, clean.size)])[: opens.size - 1]
    overflow = filled + lengths[opens[1:]]
    capacity = float(np.quantile(overflow, 0.1))
    packed = float((filled <= capacity).mean()) if np.median(gaps) > 1 else 0.0
    return ramp(max(even, packed), 0.6, 0.9) * ramp(opens.size, 0, 2)


def _packed(seen: Examination) -> tuple[float, float, Split] | None:
    """How sure a leak across packed documents is, and how it goes along the document."""
    split = seen.places.two_groups
    if split is None:
        return None
    dirty = seen.places.dirty_sequences
    opens = _first_of_packs(~dirty, seen.signals.response_lengths)
    confidence = 0.9 * opens * ramp(split.contrast, 0.7, 1.4) * seen.clean(split)
    confidence *= seen.two_kinds * seen.same_token * seen.unlabelled
    body = seen.places.body
    length = seen.signals.response_lengths[body.sequence]
    early = split.dirty & (body.index < length / 3)
    late = split.dirty & (body.index >= 2 * length / 3)
    along = 0.0
    if early.any() and late.any():
        along = float(body.size[late].mean() - body.size[early].mean())
    return (confidence, along, split) if confidence >= 0.05 else None


def packed_attention(seen: Examination) -> Finding | None:
    found = _packed(seen)
    if found is None:
        return None
    confidence, along, split = found
    return _packed_finding(seen, confidence * (1.0 - _fading(along, split)), along, split)


def packed_state(seen: Examination) -> Finding | None:
    found = _packed(seen)
    if found is None:
        return None
    confidence, along, split = found
    return _packed_finding(seen, confidence * _fading(along, split), along, split)


def _fading(along: float, split: Split) -> float:
    """1 for a state: it fades along the document, and carries a trace where attention to a whole
    foreign document changes everything, by nats."""
    return 0.15 + 0.7 * max(ramp(along, -0.4, -1.0), ramp(split.dirty_sigma, 0.9, 0.5))


def _packed_finding(
    seen: Examination, confidence: float, along: float, split: Split
) -> Finding | None:
    if confidence < 0.05:
        return None
    dirty = seen.places.dirty_sequences
    opens = np.flatnonzero(~dirty)
    return Finding(
        confidence,
        (
            Evidence(
                "sequences that are clean",
                f"{opens.size}, {', '.join(map(str, opens[:6]))}{', …' if opens.size > 6 else ''}",
                "all; these open a pack",
            ),
            Evidence(
                "noise in the others over the clean ones",
                round(float(np.exp(split.contrast)), 1),
                "1",
            ),
            Evidence(
                "log of the noise late in a document over early",
                round(along, 2),
                "falls for a state that fades, stays for attention",
            ),
        ),
    )


CAUSES = (
    Cause(
        name="pad_attended",
        title="padding is attended to, or counted in the positions",
        level="context",
        mechanism="No attention mask reaches the model, or positions run over the padding.",
        signature="The error follows how much padding a sequence needs; the longest of a batch is "
        "clean.",
        remedy="Pass attention_mask and position_ids with every padded batch, or pack without "
        "padding.",
        next_control="Score one short sequence alone: without padding it is clean.",
        detect=pad_attended,
        plot=noise_by_length,
    ),
    Cause(
        name="packed_attention_leak",
        title="attention crosses the borders of packed documents",
        level="context",
        mechanism="Packed sequences without cu_seqlens or a block mask: sdpa and eager attend to "
        "the earlier documents of the pack.",
        signature="The first document of each pack is clean, all later ones differ along their "
        "whole length.",
        remedy="Use a variable-length attention (flash_attention_2 with position_ids that restart) "
        "or a block-diagonal mask.",
        next_control="Change one token of a pack's first document: nothing in the second may move.",
        detect=packed_attention,
        plot=noise_by_sequence,
    ),
    Cause(
        name="packed_state_leak",
        title="recurrent state crosses the borders of packed documents",
        level="context",
        mechanism="Convolution and state-space layers are not told where a document starts.",
        signature="The first document of each pack is clean; later ones differ most at their start "
        "and less as the state fades.",
        remedy="Pass cu_seqlens (seq_idx) to every convolution and scan of the hybrid layers.",
        next_control="Change one token of a pack's first document: nothing in the second may move.",
        detect=packed_state,
        plot=noise_by_sequence,
    ),
)
