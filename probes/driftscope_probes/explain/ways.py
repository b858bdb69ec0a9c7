"""Which named way of an op equals a side bit for bit, over all sites of a kind.

In: what a side's ops made of their inputs, and a family. Out: the way found, or the nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from driftscope_kernels.compare_ops.equality import NOTHING, Equality
from driftscope_kernels.compare_ops.variant import AnyFamily, AnyVariant, Outputs
from driftscope_probes.explain.comparison import equality
from driftscope_probes.explain.judged import Seen

#: Reads one site's tensors: those of all sites are never in memory at once.
SeenAt = Callable[[], Seen]


@dataclass(frozen=True, slots=True)
class FoundWay:
    variant: AnyVariant  # the nearest where none is exact
    equal: Equality  # over all sites

    @property
    def exact(self) -> bool:
        return self.equal.exact


def find_way(family: AnyFamily, seen: Sequence[SeenAt]) -> FoundWay:
    """The plainest way that equals every site; else the one that equals most elements.

    A way that fails on the first site is not tried on the others, unless none is exact there.
    """
    first, rest = seen[0](), seen[1:]
    tried = []
    for variant in family.variants(first.parameters):
        found = FoundWay(variant, equal_of(variant, first))
        tried.append(found)
        if found.exact:
            whole = _over(found, rest)
            if whole.exact:
                return whole
    nearest = max(tried, key=lambda found: found.equal.equal)
    return _over(nearest, rest)


def _over(found: FoundWay, rest: Sequence[SeenAt]) -> FoundWay:
    total = found.equal
    for one in rest:
        total += equal_of(found.variant, one())
    return FoundWay(found.variant, total)


def equal_of(variant: AnyVariant, seen: Seen) -> Equality:
    total = NOTHING
    for mine, theirs in zip(run_way(variant, seen), seen.outputs, strict=True):
        total += equality(mine, theirs)
    return total


def run_way(variant: AnyVariant, seen: Seen) -> Outputs:
    outputs: Outputs = variant.run(seen.inputs, seen.parameters, seen.dtypes[0])
    return outputs
