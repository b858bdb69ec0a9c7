"""What differing digests mean: which fault of a weight sync leaves just these tensors behind.

In: digests by name of both sides, and of what the trainer had before. Out: a WeightsDigest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from driftscope_kernels.on_policy.weights.recorded import MOST_NAMED, Kind, WeightsDigest
from driftscope_kernels.on_policy.weights.row_sums import over_all
from driftscope_kernels.on_policy.weights.trainer import HEAD

Digests = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Seen:
    """Of one moment; both sides have the same names."""

    trainer: Digests
    engine: Digests
    earlier: Sequence[Digests] = ()  # the trainer's at earlier syncs, the latest first
    base: Digests | None = None  # without the adapter, where there is one
    tied: str | None = None  # the embedding that lm_head shares
    rounded: bool = False

    @property
    def differing(self) -> tuple[str, ...]:
        return tuple(name for name, own in self.trainer.items() if self.engine[name] != own)


def judge(
    seen: Seen,
    version: int,
    *,
    unseen: int = 0,
    function_diff: float | None = None,
    allowed: float = 0.0,
) -> WeightsDigest:
    """`allowed`: of `function_diff`; where every tensor is equal and that is larger, the engine
    does not compute with what it shows."""
    differing = seen.differing
    kind, behind = _kind(seen, differing)
    if not differing and function_diff is not None and not function_diff <= allowed:
        kind = "unknown"
    return WeightsDigest(
        version=version,
        trainer=over_all(seen.trainer.items()),
        engine=over_all(seen.engine.items()),
        differing=differing[:MOST_NAMED],
        kind=kind,
        differing_tensors=len(differing),
        unseen_tensors=unseen,
        versions_behind=behind,
        function_diff=function_diff,
    )


def _kind(seen: Seen, differing: Sequence[str]) -> tuple[Kind, int | None]:
    if not differing:
        return ("rounded_masters" if seen.rounded else "equal"), None
    if all(seen.engine[name] == 0 for name in differing):
        return "weights_lost", None
    # An adapter that is young changes weights by what the base has; this says more than "stale".
    if seen.base is not None and _holds(seen, seen.base, seen.trainer):
        return "adapter_not_merged", None
    behind = _behind(seen, tuple(seen.trainer))
    if behind is not None:
        return "stale", behind
    behind = _behind(seen, differing)
    if behind is None and not all(_held_before(seen, name) for name in differing):
        return "unknown", None
    if seen.tied is not None and set(differing) == {HEAD}:
        return "tied_head_stale", behind
    if all(".experts." in name for name in differing):
        return "experts_stale", behind
    return "tensor_not_sent", behind


def _behind(seen: Seen, names: Sequence[str]) -> int | None:
    """Syncs since these tensors of the engine were the trainer's."""
    found = (
        behind
        for behind, version in enumerate(seen.earlier, start=1)
        if _holds(seen, version, names)
    )
    return next(found, None)


def _holds(seen: Seen, version: Digests, names: Sequence[str] | Digests) -> bool:
    """Whether these tensors of the engine are those of a version."""
    return all(seen.engine[name] == version.get(name) for name in names)


def _held_before(seen: Seen, name: str) -> bool:
    """Tensors that were left behind one after another are of several versions."""
    return any(seen.engine[name] == version.get(name) for version in seen.earlier)
