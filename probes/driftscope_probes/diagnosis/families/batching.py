"""Batching: the fault depends on which other sequences shared the batch, rank or replica.

In: an Examination. Out: findings on padding, packing, ranks and replicas.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.cause import Cause, Evidence, Finding
from driftscope_probes.diagnosis.examination import Examination, ramp
from driftscope_probes.diagnosis.places import Split
from driftscope_probes.diagnosis.plots import noise_by_length, noise_by_sequence
from driftscope_probes.diagnosis.signals import Bools

FEW_SEQUENCES = 4


def by_label(
    seen: Examination, labels: NDArray[Any] | None, what: str, values_of: str
) -> Finding | None:
    """Sequences of some values of a pushed label differ from those of the others."""
    if labels is None or np.unique(labels).size < 2:
        return None
    split = seen.places.by_label(labels)
    if split is None:
        return None
    sequences = seen.places.body.sequence
    dirty = np.unique(labels[np.unique(sequences[split.dirty])])
    accounts = seen.accounts(split)
    values = np.unique(labels).size
    # Many labels fit any pattern: as many free choices as there are values.
    room = ramp(values / max(1, np.unique(sequences).size), 0.5, 0.2)
    confidence = 0.95 * ramp(split.contrast, 0.4, 0.9) * ramp(accounts, 0.45, 0.75) * room
    confidence *= ramp(split.clean_sigma / seen.floor.sigma, 8.0, 3.0) * seen.same_token
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            Evidence(
                f"{what} whose sequences differ",
                ", ".join(map(str, dirty[:8])),
                f"none of {values}",
            ),
            Evidence(
                "noise there, nats on the logits",
                float(f"{split.dirty_sigma:.3g}"),
                f"{split.clean_sigma:.3g} in the others",
            ),
            Evidence(
                f"of the difference between sequences, explained by {values_of}",
                round(accounts, 2),
                "about 0",
            ),
        ),
    )


def _without_label(seen: Examination, split: Split | None, where: str) -> Finding | None:
    if split is None:
        return None
    accounts = seen.accounts(split)
    confidence = (
        0.75
        * ramp(split.contrast, 0.6, 1.2)
        * ramp(accounts, 0.6, 0.85)
        * seen.clean(split)
        * seen.two_kinds
        * seen.same_token
        * seen.unlabelled
        * seen.leads(split)
        # Few sequences fall into an order by chance.
        * ramp(np.unique(seen.places.body.sequence).size, 6, 16)
    )
    if confidence < 0.05:
        return None
    sequences = np.unique(seen.places.body.sequence[split.dirty])
    return Finding(
        confidence,
        (
            Evidence(
                where,
                f"{sequences.size} sequences from {int(sequences[0])} on",
                "scattered, or none",
            ),
            Evidence(
                "noise there, nats on the logits",
                float(f"{split.dirty_sigma:.3g}"),
                f"{split.clean_sigma:.3g} in the others",
            ),
            Evidence(
                "of the difference between sequences, explained by it",
                round(accounts, 2),
                "about 0",
            ),
        ),
    )


def rank_local(seen: Examination) -> Finding | None:
    labelled = by_label(seen, seen.signals.extras.rank, "ranks", "the rank")
    if labelled is not None or seen.signals.extras.rank is not None:
        return labelled
    found = _without_label(seen, seen.places.block, "a run of neighbours differs")
    if found is None:
        return None
    # One rank's share is one run; a second run is another reason.
    runs = ramp(seen.places.dirty_runs, 4, 1)
    return Finding(found.confidence * runs, found.evidence)


def replica_differs(seen: Examination) -> Finding | None:
    labelled = by_label(seen, seen.signals.extras.replica, "replicas", "the replica")
    if labelled is not None or seen.signals.extras.replica is not None:
        return labelled
    split = seen.places.periodic
    if split is None or split.fraction > 0.5:
        return None  # most differ: then the others are the exception, as the first of packs
    return _without_label(seen, split, f"every sequence of one place in {int(split.at)} differs")


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
    first, _ = seen.signals._first_last
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
    Cause(
        name="rank_local_corruption",
        title="one trainer rank computes something else",
        level="context",
        mechanism="A rank holds other weights, a broken collective or faulty memory.",
        signature="The sequences of one rank differ; without a rank label, one run of neighbours.",
        remedy="Compare weight checksums across ranks, unset NCCL_PROTO and similar overrides, run "
        "the node's memory test.",
        next_control="Score the same sequence on every rank: all answers must have the same bits.",
        detect=rank_local,
        plot=noise_by_sequence,
    ),
    Cause(
        name="replica_differs",
        title="one engine replica differs from the others",
        level="context",
        mechanism="A replica missed a sync, runs other kernels (autotuned per launch) or another "
        "version.",
        signature="The sequences of one replica differ; without a label, every k-th sequence.",
        remedy="Restart the replica, pin its autotune cache, and compare weight checksums across "
        "replicas after every sync.",
        next_control="Send one prompt with a fixed seed to every replica: all must answer alike.",
        detect=replica_differs,
        plot=noise_by_sequence,
    ),
)
