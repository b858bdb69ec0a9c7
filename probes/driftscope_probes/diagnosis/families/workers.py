"""Workers: one rank of the trainer or one replica of the engine is not like the others.

In: an Examination. Out: findings by pushed label, or by the order of the sequences.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.cause import Evidence, Finding
from driftscope_probes.diagnosis.examination import Examination, ramp
from driftscope_probes.diagnosis.families.base import Cause
from driftscope_probes.diagnosis.plots import noise_by_sequence
from driftscope_probes.diagnosis.split import Split


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


CAUSES = (
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
