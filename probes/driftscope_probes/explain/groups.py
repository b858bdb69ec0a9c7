"""Sites that differ on equal inputs, put together by kind of op and by reason.

In: the passes, both sides' parameters. Out: groups, each with both sides' ways and the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import torch

from driftscope_kernels.compare_ops.choices import PLAIN
from driftscope_kernels.compare_ops.equality import NOTHING, Equality
from driftscope_kernels.compare_ops.parameters import Parameters
from driftscope_kernels.compare_ops.reasons import Reason
from driftscope_kernels.compare_ops.registry import FAMILIES
from driftscope_kernels.compare_ops.variant import AnyFamily
from driftscope_probes.explain.comparison import Passes, SiteDifference
from driftscope_probes.explain.faults import Fault, changed_fields, find_fault
from driftscope_probes.explain.judged import Judged, Seen, judge
from driftscope_probes.explain.orders import orders_of
from driftscope_probes.explain.replay import SiteWay
from driftscope_probes.explain.report import Tree
from driftscope_probes.explain.sides.base import SideName
from driftscope_probes.explain.sites import KIND_LABELS, Kind, Site
from driftscope_probes.explain.store import Store
from driftscope_probes.explain.ways import FoundWay, SeenAt, find_way

#: A way that is not exact still tells the reason where it equals nearly all elements, and clearly
#: more of them than the other side's way does.
NEARLY: Final = 0.98
OnKind = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Group:
    kind: Kind
    differences: tuple[SiteDifference, ...]  # in the order in which the ops run
    reason: Reason
    why: str  # a sentence
    judged: Judged | None  # None: no parameters
    fault: Fault | None
    engine: FoundWay | None
    trainer: FoundWay | None
    trees: tuple[Tree, ...] = ()  # of a linear layer whose sides add in different orders

    @property
    def forward(self) -> Equality:
        return sum((one.forward for one in self.differences), NOTHING)

    @property
    def reverse(self) -> Equality:
        return sum((one.reverse for one in self.differences), NOTHING)

    def exact(self, side: SideName) -> bool:
        way = self.engine if side == "engine" else self.trainer
        return way is not None and way.exact


@dataclass(frozen=True, slots=True)
class Examined:
    """What is read of the sites: `engine` and `trainer` give the parameters of a site."""

    passes: Passes
    engine: Callable[[Site], Parameters | None]
    trainer: Callable[[Site], Parameters | None]

    def seen(self, side: SideName, site: Site) -> Seen | None:
        """The side's op on the engine's inputs. None: its parameters cannot be read."""
        parameters = (self.engine if side == "engine" else self.trainer)(site)
        if parameters is None:
            return None
        passes = self.passes
        like = passes.engine if side == "engine" else passes.trainer
        given = passes.engine if side == "engine" else passes.trainer_on_engine
        outputs = tuple(passes.read(given, place) for place in site.outputs.values())
        return Seen(passes.inputs(site, passes.engine, like), outputs, parameters)

    def dtypes(self, site: Site) -> tuple[str, str]:
        """In which the engine and the trainer store what the op gives."""
        (place, *_) = site.outputs.values()
        both = (self.passes.engine.dtype(place), self.passes.trainer.dtype(place))
        mine, theirs = (str(dtype).removeprefix("torch.") for dtype in both)
        return mine, theirs

    def ways(self, side: SideName, site: Site, found: FoundWay) -> SiteWay:
        """How the other side can compute the site as this one does."""
        parameters = (self.engine if side == "engine" else self.trainer)(site)
        assert parameters is not None, site
        store: Store = self.passes.engine if side == "engine" else self.passes.trainer
        (first, *_) = site.outputs.values()
        return SiteWay(
            site,
            found.variant,
            parameters,
            {name: store.dtype(place) for name, place in site.inputs.items()},
            store.dtype(first),
        )


def groups_of(
    examined: Examined, differences: Sequence[SiteDifference], told: OnKind = lambda _: None
) -> list[Group]:
    """Sites that are equal are in none. Groups come in the order of their first site."""
    order = {one.site.key: index for index, one in enumerate(differences)}
    differing = [one for one in differences if not one.forward.exact]
    by_kind: dict[Kind, list[SiteDifference]] = {}
    for one in differing:
        by_kind.setdefault(one.site.kind, []).append(one)
    found: list[Group] = []
    for kind, members in by_kind.items():
        told(KIND_LABELS[kind])
        found += _of_kind(examined, kind, members)
    return sorted(found, key=lambda group: order[group.differences[0].site.key])


def _of_kind(examined: Examined, kind: Kind, members: Sequence[SiteDifference]) -> Iterator[Group]:
    family = FAMILIES.get(kind)
    judged: dict[str, Judged] = {}
    faults: dict[str, Fault] = {}
    known: list[SiteDifference] = []
    for one in members:
        engine, trainer = (examined.seen(side, one.site) for side in ("engine", "trainer"))
        if family is None or engine is None or trainer is None:
            continue
        known.append(one)
        verdict = judge(family, engine, trainer)
        judged[one.site.key] = verdict
        # Another number or weight is no rounding, even where its effect hides below it.
        changed = changed_fields(engine.parameters, trainer.parameters, engine.dtypes[0])
        if verdict.fault or changed:
            faults[one.site.key] = find_fault(family, engine, trainer, verdict)
    unread = [one for one in members if one.site.key not in judged]
    if unread:
        yield _unread(kind, unread)
    if family is None:
        return
    rounding = [one for one in known if one.site.key not in faults]
    if rounding:
        yield _of_rounding(examined, family, kind, rounding, judged)
    wrong = [one for one in known if one.site.key in faults]

    def same(one: SiteDifference) -> tuple[str, str, str]:
        fault = faults[one.site.key]
        return fault.reason, fault.side, fault.variant or ""

    for _, part in groupby(sorted(wrong, key=same), same):
        chosen = sorted(part, key=members.index)
        yield _of_fault(examined, family, kind, chosen, judged, faults)


def _unread(kind: Kind, members: Sequence[SiteDifference]) -> Group:
    why = (
        f"{KIND_LABELS[kind]} differs on equal inputs; what it computes with cannot be read on "
        "both sides, so its ways cannot be tried."
    )
    return Group(kind, tuple(members), "unknown", why, None, None, None, None)


def seen_at(examined: Examined, side: SideName, site: Site) -> SeenAt:
    def read() -> Seen:
        seen = examined.seen(side, site)
        assert seen is not None, site
        return seen

    return read


def _of_rounding(
    examined: Examined,
    family: AnyFamily,
    kind: Kind,
    members: Sequence[SiteDifference],
    judged: Mapping[str, Judged],
) -> Group:
    engine = find_way(family, [seen_at(examined, "engine", one.site) for one in members])
    trainer = find_way(family, [seen_at(examined, "trainer", one.site) for one in members])
    reason, why = rounding_reason(kind, engine, trainer)
    mine, theirs = examined.dtypes(members[0].site)
    trees: list[Tree] = []
    if mine != theirs:
        reason, why = "dtype", f"The engine stores {mine}, the trainer {theirs}. {why}"
    elif mine == "float32" and reason == "rounding_point":
        # Nothing is rounded to less than float32 here: what is left of the two ways is their order.
        reason = "reduction_order"
    if reason == "reduction_order" and kind in ("linear", "router"):
        trees, parting = orders_of(seen_at(examined, "engine", members[0].site)(), engine, trainer)
        why += parting
    merged = _merged([judged[one.site.key] for one in members])
    return Group(kind, tuple(members), reason, why, merged, None, engine, trainer, tuple(trees))


def rounding_reason(kind: Kind, engine: FoundWay, trainer: FoundWay) -> tuple[Reason, str]:
    """What the engine's way does otherwise than the trainer's."""
    label = KIND_LABELS[kind]
    mine, theirs = engine.variant, trainer.variant
    if not all(way.equal.fraction >= NEARLY for way in (engine, trainer)):
        return "reduction_order", (
            f"{label[0].upper()}{label[1:]} is as near to float64 on both sides as rounding "
            "allows, and no named way has the bits of both: they add in another order."
        )
    nearly = "" if engine.exact and trainer.exact else _nearly(engine, trainer)
    if mine.name == theirs.name and not nearly:
        return "dtype", f"On both sides {mine.says}."
    if mine.name == theirs.name:
        return "primitive", (
            f"On both sides {mine.says}, and that way has not quite the bits of both{nearly}."
        )
    # The plain way departs from nothing, and so has no reason of its own.
    reason = theirs.reason if mine.name == PLAIN else mine.reason
    return reason, f"On the engine {mine.says}; on the trainer {theirs.says}{nearly}."


def _nearly(engine: FoundWay, trainer: FoundWay) -> str:
    parts = [
        f"{name} in {way.equal.equal:,} of {way.equal.elements:,} elements"
        for name, way in (("engine", engine), ("trainer", trainer))
        if not way.exact
    ]
    return f" (not exactly: {', '.join(parts)})"


def _of_fault(
    examined: Examined,
    family: AnyFamily,
    kind: Kind,
    members: Sequence[SiteDifference],
    judged: Mapping[str, Judged],
    faults: Mapping[str, Fault],
) -> Group:
    fault = faults[members[0].site.key]
    engine = find_way(family, [seen_at(examined, "engine", one.site) for one in members])
    trainer = find_way(family, [seen_at(examined, "trainer", one.site) for one in members])
    merged = _merged([judged[one.site.key] for one in members])
    where = f"{KIND_LABELS[kind]} of the {fault.side}"
    why = f"{where} is farther off than rounding explains: {fault.says}."
    return Group(kind, tuple(members), fault.reason, why, merged, fault, engine, trainer)


def _merged(parts: Sequence[Judged]) -> Judged:
    """Means over sites of like size."""
    values = torch.tensor(
        [(p.engine_error, p.trainer_error, p.engine_off, p.trainer_off, p.apart) for p in parts],
        dtype=torch.float64,
    )
    return Judged(*values.mean(0).tolist())
