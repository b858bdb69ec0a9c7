"""What differs between two fingerprints, by mechanism, and what of a transformer it touches.

Free of torch. In: two reports. Out: a FingerprintDifference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from driftscope_probes.device.environment import Change, compare_environments
from driftscope_probes.fingerprint.report import FingerprintReport, FunctionReading, PathReading
from driftscope_probes.fingerprint.suspects import Suspect, suspects
from driftscope_probes.plural import counted


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One thing that changed, in all the places where it changed alike."""

    what: str  # "order", "accumulator", "rounding", …
    where: str  # "torch.mm, fp32"
    before: str
    after: str
    shapes: tuple[str, ...]  # "M 1, N 256, K 576, 2 threads"
    touches: str  # which ops of a transformer


@dataclass(frozen=True, slots=True)
class FingerprintDifference:
    mechanisms: tuple[Mechanism, ...]
    only_before: tuple[str, ...]  # paths that the other does not have
    only_after: tuple[str, ...]
    environment: tuple[Change, ...]
    suspects: tuple[Suspect, ...]  # changes of the environment that can explain mechanisms
    compared: int

    @property
    def equal(self) -> bool:
        """The arithmetic is one, whatever else the machines do not share."""
        return not (self.mechanisms or self.only_before or self.only_after)

    @property
    def sentence(self) -> str:
        if self.equal:
            return f"Both compute alike on {counted(self.compared, 'path')}."
        parts = [counted(len(self.mechanisms), "mechanism")] if self.mechanisms else []
        missing = len(self.only_before) + len(self.only_after)
        parts += [f"{counted(missing, 'path')} of only one side"] if missing else []
        return f"They differ in {' and '.join(parts)}, of {counted(self.compared, 'path')}."

    def to_dict(self) -> dict[str, Any]:
        return {
            "equal": self.equal,
            "sentence": self.sentence,
            "mechanisms": [asdict(each) for each in self.mechanisms],
            "only_before": list(self.only_before),
            "only_after": list(self.only_after),
            "environment": [each.to_dict() for each in self.environment],
            "suspects": [asdict(each) for each in self.suspects],
            "compared": self.compared,
        }


#: Of a transformer, by op and by function.
TOUCHES: Final[Mapping[str, str]] = {
    "linear": "projections of attention and MLP, the router, lm_head",
    "mm": "projections of attention and MLP without bias, weight gradients",
    "bmm": "eager attention, experts",
    "sdpa": "attention",
    "sum": "norms, losses, bias gradients",
    "exp": "softmax, and with it attention and log-probabilities",
    "log": "log-softmax, and with it every log-probability",
    "rsqrt": "RMSNorm and LayerNorm",
    "tanh": "GELU, capped scores and logits",
    "silu": "the gate of the MLP",
    "softmax": "attention, sampling, the router",
    "log_softmax": "every log-probability",
}
MATRIX_UNITS: Final = "every product of this input type that runs on matrix units"


@dataclass(frozen=True, slots=True)
class Aspect:
    name: str
    of: Callable[[PathReading], object]
    said: Callable[[PathReading], str]


FUSED: Final[Mapping[bool | None, str]] = {
    True: "fused multiply-add",
    False: "products rounded before they are added",
    None: "every product fits",
}


def _order(path: PathReading) -> str:
    return f"K is summed as {path.order}" if path.order else f"no one order ({path.why})"


#: A change is told by the first of these that it shows in; the last alone is seen by no other.
ASPECTS: Final[tuple[Aspect, ...]] = (
    Aspect("order", lambda path: path.tree_hash, _order),
    Aspect(
        "products before a rounding",
        lambda path: (path.products_before_rounding, path.products_per_step),
        lambda path: f"{path.products_before_rounding} products are summed before a rounding",
    ),
    Aspect(
        "accumulator",
        lambda path: (path.accumulator_bits, path.sum_fraction_bits),
        lambda path: (
            f"sums are kept in {path.accumulator_bits} bits, {path.sum_fraction_bits} of "
            "them after the leading one"
        ),
    ),
    Aspect(
        "bits kept when aligning",
        lambda path: (path.fraction_bits, path.alignment),
        lambda path: (
            f"terms are aligned to {path.fraction_bits} bits below the largest, "
            f"the rest rounded {path.alignment}"
        ),
    ),
    Aspect(
        "rounding", lambda path: path.rounding, lambda path: f"sums are rounded {path.rounding}"
    ),
    Aspect("fused multiply-add", lambda path: path.fma, lambda path: FUSED[path.fma]),
    Aspect(
        "subnormals",
        lambda path: path.subnormals,
        lambda path: f"subnormal numbers are {path.subnormals}",
    ),
    Aspect(
        "infinities",
        lambda path: path.infinities,
        lambda path: f"infinity and NaN: {path.infinities}",
    ),
)
BITS: Final = Aspect("bits", lambda path: path.bits, lambda path: f"fixed inputs give {path.bits}")


def difference(before: FingerprintReport, after: FingerprintReport) -> FingerprintDifference:
    old = {path.key: path for path in before.paths}
    new = {path.key: path for path in after.paths}
    found: list[Mechanism] = []
    for key in old.keys() & new.keys():
        found += _of_path(old[key], new[key])
    of_functions = list(_of_functions(before, after))
    mechanisms = tuple(_joined(found + of_functions))
    changes = compare_environments(before.environment, after.environment)
    return FingerprintDifference(
        mechanisms=mechanisms,
        only_before=tuple(_name(old[key]) for key in old if key not in new),
        only_after=tuple(_name(new[key]) for key in new if key not in old),
        environment=changes,
        suspects=suspects(
            [each.where for each in mechanisms], {each.where for each in of_functions}, changes
        ),
        compared=len(old.keys() & new.keys()),
    )


def _of_path(old: PathReading, new: PathReading) -> Iterator[Mechanism]:
    changed = [aspect for aspect in ASPECTS if aspect.of(old) != aspect.of(new)]
    if not changed and BITS.of(old) != BITS.of(new):
        changed = [BITS]
    for aspect in changed:
        before, after = aspect.said(old), aspect.said(new)
        if before == after:  # alike in words: the trees part further in
            before, after = f"{before} ({old.tree_hash})", f"{after} ({new.tree_hash})"
        where = f"{old.path}, {old.dtype}"
        yield Mechanism(aspect.name, where, before, after, (_shape(old),), _touched(old))


def _of_functions(before: FingerprintReport, after: FingerprintReport) -> Iterator[Mechanism]:
    old = {(each.name, each.dtype): each for each in before.functions}
    for new in after.functions:
        known = old.get((new.name, new.dtype))
        if known is not None and known.bits != new.bits:
            yield Mechanism(
                what="function",
                where=f"{new.name}, {new.dtype}",
                before=_error(known),
                after=_error(new),
                shapes=(),
                touches=TOUCHES.get(new.name, ""),
            )


def _error(read: FunctionReading) -> str:
    return f"up to {read.largest_error_ulp:g} ULP off at {read.at:g} (results {read.bits})"


def _joined(found: list[Mechanism]) -> Iterator[Mechanism]:
    """The same change at several shapes is one; in the order of the words, not of a set."""
    groups: dict[tuple[str, ...], list[Mechanism]] = {}
    for each in found:
        groups.setdefault((each.where, each.what, each.before, each.after), []).append(each)
    for key in sorted(groups):
        shapes = sorted({shape for each in groups[key] for shape in each.shapes})
        first = groups[key][0]
        yield Mechanism(
            first.what, first.where, first.before, first.after, tuple(shapes), first.touches
        )


def _touched(path: PathReading) -> str:
    return TOUCHES.get(path.op, MATRIX_UNITS)


def _name(path: PathReading) -> str:
    return f"{path.path}, {path.dtype}, {_shape(path)}"


def _shape(path: PathReading) -> str:
    m, n, k = path.shape
    return f"M {m}, N {n}, K {k}, {counted(path.threads, 'thread')}"
