"""From two live sides to the report's parts: what differs, why, and whether that is all.

In: an engine's and a trainer's side, a sample. Out: Explanation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftscope_kernels.compare_ops.reasons import ROUNDING
from driftscope_kernels.compare_ops.registry import FAMILIES
from driftscope_probes.explain.comparison import SCORED_ONLY, Passes, SiteDifference
from driftscope_probes.explain.groups import Examined, Group, seen_at
from driftscope_probes.explain.judged import Judged
from driftscope_probes.explain.replay import SiteWay, replayed
from driftscope_probes.explain.report import (
    Backward,
    Closer,
    Compared,
    Errors,
    First,
    Gap,
    Op,
    Swap,
    Verdict,
    Verified,
    Way,
)
from driftscope_probes.explain.sample import Sample
from driftscope_probes.explain.sides.base import Side, SideName
from driftscope_probes.explain.sites import KIND_LABELS, Place
from driftscope_probes.explain.ways import FoundWay, find_way

#: A named set has to bring the gap down to its prediction, give or take this part of the gap.
HELD_WITHIN: Final = 0.02
#: An op that alone leaves more than this part of the gap does not explain it alone.
MOST_LEFT: Final = 0.5
#: Errors as near to each other as this count as equal.
EQUALLY_NEAR: Final = 1.02
OnStep = Callable[[str], None]


def gap_of(engine: NDArray[np.float32], trainer: NDArray[np.float32]) -> Gap:
    apart = np.abs(engine.astype(np.float64) - trainer)
    return Gap(
        tokens=engine.size,
        abs_diff_mean=float(apart.mean()),
        abs_diff_max=float(apart.max()),
        equal_fraction=float((engine == trainer).mean()),
    )


@dataclass(frozen=True, slots=True)
class Replays:
    """The gap with ops replaced: together, and each kind alone."""

    verified: Verified
    alone: tuple[Swap, ...]  # by group


def verify(
    examined: Examined,
    groups: Sequence[Group],
    engine: Side,
    trainer: Side,
    scratch: Path,
    told: OnStep = lambda _: None,
) -> Replays:
    """Raises ProbeError.

    The engine takes the trainer's ways where all of them are known exactly, the trainer the
    engine's where those are; else the engine takes what is nearest.
    """
    passes = examined.passes
    before = gap_of(passes.engine_logprobs, passes.trainer_logprobs)
    narrower = any(mine != theirs for mine, theirs in map(examined.dtypes, passes.sites))
    giver = _giver(groups, narrower)
    taker, fixed = (engine, passes.trainer_logprobs)
    if giver == "engine":
        taker, fixed = (trainer, passes.engine_logprobs)
    ways = [_ways_of(examined, giver, group) for group in groups]
    rest = _others(examined, giver, groups) if narrower else []
    told("all of them replaced at once")
    together = replayed(taker, passes.sample, [*sum(ways, []), *rest], scratch)
    after = gap_of(together, fixed)
    alone = []
    for group, own in zip(groups, ways, strict=True):
        told(f"{KIND_LABELS[group.kind]} replaced alone")
        left = gap_of(replayed(taker, passes.sample, own, scratch), fixed)
        alone.append(
            Swap(abs_diff_mean_before=before.abs_diff_mean, abs_diff_mean_after=left.abs_diff_mean)
        )
    return Replays(_verified(groups, giver, before, after, alone), tuple(alone))


def _giver(groups: Sequence[Group], narrower: bool) -> SideName:
    """Whose ways are taken. Unequal dtypes: a wide trainer can hold what a narrow engine gives."""
    exact = {side: all(group.exact(side) for group in groups) for side in ("engine", "trainer")}
    if narrower:
        return "engine"
    return "engine" if exact["engine"] and not exact["trainer"] else "trainer"


def _ways_of(examined: Examined, giver: SideName, group: Group) -> list[SiteWay]:
    found = group.engine if giver == "engine" else group.trainer
    if found is None:
        return []
    return [examined.ways(giver, one.site, found) for one in group.differences]


def _others(examined: Examined, giver: SideName, groups: Sequence[Group]) -> list[SiteWay]:
    """Ways of the sites that are in no group: equal once both are rounded, but stored otherwise."""
    named = {one.site.key for group in groups for one in group.differences}
    left = [site for site in examined.passes.sites if site.key not in named]
    found: list[SiteWay] = []
    for kind in dict.fromkeys(site.kind for site in left):
        family = FAMILIES.get(kind)
        sites = [site for site in left if site.kind == kind]
        if family is None or examined.seen(giver, sites[0]) is None:
            continue
        way = find_way(family, [seen_at(examined, giver, site) for site in sites[:1]])
        found += [examined.ways(giver, site, way) for site in sites]
    return found


def _verified(
    groups: Sequence[Group],
    giver: SideName,
    before: Gap,
    after: Gap,
    alone: Sequence[Swap],
) -> Verified:
    predicted = 0.0  # the named ops are all that differ on equal inputs
    holds = after.abs_diff_mean <= predicted + HELD_WITHIN * before.abs_diff_mean
    all_or_nothing = (
        holds
        and len(groups) > 1
        and all(one.abs_diff_mean_after > MOST_LEFT * before.abs_diff_mean for one in alone)
    )
    taker = "trainer" if giver == "engine" else "engine"
    names = [KIND_LABELS[kind] for kind in dict.fromkeys(group.kind for group in groups)]
    named = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    sentence = (
        f"With {named} computed the {giver}'s way on the {taker}, mean |Δ| goes from "
        f"{before.abs_diff_mean:.3g} to {after.abs_diff_mean:.3g} nats"
    )
    if all_or_nothing:
        least = min(one.abs_diff_mean_after for one in alone)
        sentence += (
            f"; one of them alone leaves at least {least:.3g}: the gap is all or nothing, since "
            "one differing bit grows to the same floor"
        )
    if not holds:
        sentence += ": they are not the whole cause"
    return Verified(
        replaced=list(dict.fromkeys(group.kind for group in groups)),
        on=taker,
        abs_diff_mean_before=before.abs_diff_mean,
        abs_diff_mean_after=after.abs_diff_mean,
        predicted=predicted,
        abs_diff_max_after=after.abs_diff_max,
        holds=holds,
        all_or_nothing=all_or_nothing,
        sentence=f"{sentence}.",
    )


def op_of(sample: Sample, group: Group, swap: Swap | None, backward: Backward | None) -> Op:
    forward, reverse, judged = group.forward, group.reverse, group.judged
    sites = [one.site for one in group.differences]
    return Op(
        op=group.kind,
        label=KIND_LABELS[group.kind],
        sites=list(dict.fromkeys(site.name for site in sites)),
        layers=sorted({site.layer for site in sites if site.layer is not None}),
        equal_fraction=forward.fraction,
        max_ulp=forward.max_ulp,
        elements=forward.elements,
        reverse_equal_fraction=reverse.fraction,
        first=first_of(sample, group.differences),
        reason=group.reason,
        why=group.why,
        engine=way_of(group.engine),
        trainer=way_of(group.trainer),
        trees=list(group.trees),
        errors=_errors(judged),
        closer_to_float64=None if judged is None else closer(judged),
        beyond_tolerance=None if judged is None else judged.apart,
        backward=backward,
        swap=swap,
    )


def _errors(judged: Judged | None) -> Errors | None:
    """None also where a side gave no number: JSON has none for how far off that is."""
    if judged is None or not isfinite(judged.engine_error + judged.trainer_error):
        return None
    return Errors(engine=judged.engine_error, trainer=judged.trainer_error)


def closer(judged: Judged) -> Closer:
    low, high = sorted((judged.engine_error, judged.trainer_error))
    if high <= EQUALLY_NEAR * low:
        return "equal"
    return "engine" if judged.engine_error < judged.trainer_error else "trainer"


def way_of(found: FoundWay | None) -> Way:
    if found is None:
        return Way(variant=None, says=None, code=None, equal=0.0, nearest=None)
    variant = found.variant
    return Way(
        variant=variant.name if found.exact else None,
        says=variant.says,
        code=variant.code,
        equal=found.equal.fraction,
        nearest=variant.name,
    )


def first_of(sample: Sample, differences: Sequence[SiteDifference]) -> First | None:
    for one in differences:
        place, at = one.forward.first, one.first_output
        if place is None or at is None:
            continue
        row = place.row if at.name not in SCORED_ONLY else int(sample.scored[place.row])
        sequence, position = sample.place_of(row)
        return First(
            layer=one.site.layer,
            op=one.site.kind,
            site=one.site.name,
            token=row,
            sequence=sequence,
            position=position,
            feature=place.feature,
            engine=place.left if isfinite(place.left) else None,
            trainer=place.right if isfinite(place.right) else None,
            ulp=place.ulps,
        )
    return None


def compared_of(differences: Sequence[SiteDifference], groups: Sequence[Group]) -> list[Compared]:
    beyond = {
        one.site.key: group.judged.apart
        for group in groups
        if group.judged is not None
        for one in group.differences
    }
    return [
        Compared(
            layer=one.site.layer,
            op=one.site.kind,
            site=one.site.name,
            equal_fraction=one.forward.fraction,
            max_ulp=one.forward.max_ulp,
            reverse_equal_fraction=one.reverse.fraction,
            own_inputs_equal_fraction=one.own.fraction,
            beyond_tolerance=beyond.get(one.site.key, 0.0),
        )
        for one in differences
    ]


def verdict_of(groups: Sequence[Group], gap: Gap, replays: Replays | None) -> Verdict:
    if not groups and gap.equal_fraction == 1.0:
        return "equal"
    if any(group.fault is not None for group in groups):
        return "fault"
    if groups and all(group.reason in ROUNDING for group in groups):
        return "rounding" if replays is None or replays.verified.holds else "unexplained"
    return "unexplained"


def unnamed_places(passes: Passes) -> list[str]:
    """Places that were seen on one side alone."""
    mine, theirs = set(passes.engine.places), set(passes.trainer.places)
    return [_side(place, place in mine) for place in sorted(mine ^ theirs, key=lambda p: p.key)]


def _side(place: Place, engine: bool) -> str:
    return f"{place.key} (seen on the {'engine' if engine else 'trainer'} alone)"
