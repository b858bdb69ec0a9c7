"""What the pushed digests of both sides' weights say, in one line.

In: the metadata of a step, and kinds over the steps of its run. Out: a line for pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from driftscope_kernels.on_policy.weights.recorded import MATCHING, Kind, WeightsDigest
from driftscope_probes.plural import counted
from driftscope_service.pages.words import RunState
from driftscope_service.runs.store.steps import VerdictPoint

#: Completes "… does not hold the trainer's weights: NAMES (…)".
WORDS: Final[Mapping[Kind, str]] = {
    "equal": "every tensor has the same bits",
    "rounded_masters": "every tensor has the bits of the trainer's, rounded to the engine's dtype",
    "stale": "all tensors are those of an older sync",
    "tensor_not_sent": "not sent: left from an older sync",
    "tied_head_stale": "tied head kept stale",
    "experts_stale": "experts kept stale",
    "adapter_not_merged": "the base model's: the adapter was not merged",
    "weights_lost": "all bits are 0: dropped, and not sent again",
    "unknown": "neither the trainer's nor those of an older sync",
}
#: So many tensors are named in a line; the rest is counted.
NAMED: Final = 3


def weights_line(
    digest: WeightsDigest | None, points: Sequence[VerdictPoint] = ()
) -> RunState | None:
    """`points`: ascending, the last that of the digest; without them nothing is said of since when.
    None where no digest was pushed."""
    if digest is None:
        return None
    if digest.matches:
        return RunState(
            "good",
            "yes",
            f"The engine holds the trainer's weights: {WORDS[digest.kind]}{_but(digest)}.",
        )
    first = first_differing(points)
    since = "" if first is None else f" since step {first:,}"
    return RunState(
        "bad", "no", f"The engine does not hold the trainer's weights{since}: {_what(digest)}."
    )


def first_differing(points: Sequence[VerdictPoint]) -> int | None:
    """The first of the steps up to the last whose weights differ without a break."""
    first = None
    for point in reversed(points):
        kind = None if point.verdict is None else point.verdict.weights
        if kind is None or kind in MATCHING:
            break
        first = point.step
    return first


def _what(digest: WeightsDigest) -> str:
    if not digest.differing:
        return "known tokens get other log-probabilities, though every tensor is equal"
    behind = digest.versions_behind
    older = "" if behind is None else f", {counted(behind, 'sync')} behind"
    if digest.kind == "stale":
        return f"{WORDS['stale']}{older}"
    names = list(digest.differing[:NAMED])
    more = digest.differing_tensors - len(names)
    if more > 0:
        names.append(f"{more} more")
    return f"{', '.join(names)} ({WORDS[digest.kind]}{older})"


def _but(digest: WeightsDigest) -> str:
    unseen = digest.unseen_tensors
    return f"; {counted(unseen, 'tensor')} cannot be read" if unseen else ""
