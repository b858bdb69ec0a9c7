"""Gradients of the ops that differ: the trainer's way, the engine's way and float64 beside them.

In: groups of sites with both sides' ways. Out: Backward per group, or None where no way of a side
has a gradient. Everything runs on the engine's captured inputs, one site's graph at a time.

The trainer's op is run as the way that was found for it, which has its bits in the forward pass.
The gradient that comes from behind is a fixed random one, the same for all ways.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.equality import NOTHING, Equality
from driftscope_kernels.compare_ops.parameters import (
    LinearParameters,
    NormParameters,
    Parameters,
)
from driftscope_kernels.compare_ops.registry import FAMILIES
from driftscope_kernels.compare_ops.variant import AnyFamily, AnyVariant, Outputs
from driftscope_probes.explain.comparison import equality
from driftscope_probes.explain.groups import Examined, Group
from driftscope_probes.explain.judged import Seen
from driftscope_probes.explain.report import Backward
from driftscope_probes.explain.ways import equal_of

#: Of the gradient that comes from behind: any number will do, the same one every time.
SEED: Final = 0
#: A way that works on the bits of its numbers cuts the graph, and what is left of its gradient is
#: wrong by its own size. Rounding to bfloat16 at every step stays below a hundredth.
MOST_ERROR: Final = 0.1
#: Elements of a weight whose gradient is taken too, in float64 and both ways: that of an output
#: layer (SmolLM2's has 28 million) would take more memory than both models.
MOST_WEIGHT: Final = 2**22
Run = Callable[[Seen], Outputs]
Gradients = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class _Chosen:
    variant: AnyVariant
    found: bool  # the way that was found for the side itself


def backward_of(examined: Examined, group: Group) -> Backward | None:
    family = FAMILIES.get(group.kind)
    if family is None or group.engine is None or group.trainer is None:
        return None
    engine: _Chosen | None = None
    trainer: _Chosen | None = None
    equal, mine, theirs = NOTHING, _Error(), _Error()
    for one in group.differences:
        sides = (examined.seen("engine", one.site), examined.seen("trainer", one.site))
        engine_seen, trainer_seen = sides
        assert engine_seen is not None, one.site
        assert trainer_seen is not None, one.site
        right = _exact(family, trainer_seen)
        if not right:
            return None
        engine = engine or _choose(family, engine_seen, group.engine.variant, right)
        trainer = trainer or _choose(family, trainer_seen, group.trainer.variant, right)
        if engine is None or trainer is None:
            return None
        own, other = (
            gradients(engine.variant, engine_seen),
            gradients(trainer.variant, trainer_seen),
        )
        equal += equality_of(own, other)
        mine += _Error.of(own, right)
        theirs += _Error.of(other, right)
    assert engine is not None, group.kind
    assert trainer is not None, group.kind
    return Backward(
        equal_fraction=equal.fraction,
        max_ulp=equal.max_ulp,
        error=theirs.relative,
        engine_error=mine.relative,
        engine_way=_named(engine),
        trainer_way=_named(trainer),
    )


def _named(chosen: _Chosen) -> str:
    return chosen.variant.name if chosen.found else f"{chosen.variant.name} (nearest with one)"


def _choose(family: AnyFamily, seen: Seen, found: AnyVariant, right: Gradients) -> _Chosen | None:
    """The way of the side, or of those that have a gradient the one that equals it most."""
    if _sound(found, seen, right):
        return _Chosen(found, found=True)
    sound = [one for one in family.variants(seen.parameters) if _sound(one, seen, right)]
    if not sound:
        return None
    with torch.no_grad():
        return _Chosen(max(sound, key=lambda one: equal_of(one, seen).equal), found=False)


def _sound(variant: AnyVariant, seen: Seen, right: Gradients) -> bool:
    try:
        return _Error.of(gradients(variant, seen), right).relative <= MOST_ERROR
    except (RuntimeError, NotImplementedError):
        # Torch's word for numpy, writes in place and kernels without a derivative.
        return False


def gradients(variant: AnyVariant, seen: Seen) -> Gradients:
    """Of every input that is a number, and of the weight of norms and linear layers, up to
    MOST_WEIGHT elements; by name.

    Raises RuntimeError where the way has no derivative.
    """
    return _gradients(seen, lambda one: variant.run(one.inputs, one.parameters, one.dtypes[0]))


def _exact(family: AnyFamily, seen: Seen) -> Gradients:
    """float64. Empty where nothing has a derivative."""
    tensors = {
        name: value.double() if value.is_floating_point() else value
        for name, value in seen.inputs.tensors.items()
    }
    wide = replace(seen, inputs=replace(seen.inputs, tensors=tensors))
    return _gradients(wide, lambda one: family.reference(one.inputs, one.parameters), torch.float64)


def _gradients(seen: Seen, run: Run, dtype: torch.dtype | None = None) -> Gradients:
    leaves = {
        name: value.detach().clone().requires_grad_()
        for name, value in seen.inputs.tensors.items()
        if value.is_floating_point()
    }
    tensors = {**seen.inputs.tensors, **leaves}
    parameters = seen.parameters
    weight = _weight_of(parameters)
    if weight is not None:
        leaf = weight.detach().to(dtype or weight.dtype, copy=True).requires_grad_()
        leaves["weight"] = leaf
        parameters = _with_weight(parameters, leaf)
    if not leaves:
        return {}
    with torch.enable_grad():
        outputs = run(
            replace(seen, inputs=replace(seen.inputs, tensors=tensors), parameters=parameters)
        )
        given = [
            (one, upstream(one, like.dtype))
            for one, like in zip(outputs, seen.outputs, strict=True)
            if one.is_floating_point()
        ]
        found = torch.autograd.grad(
            [one for one, _ in given],
            list(leaves.values()),
            [gradient for _, gradient in given],
            materialize_grads=True,
        )
    return dict(zip(leaves, found, strict=True))


def upstream(output: Tensor, stored: torch.dtype) -> Tensor:
    """Numbers that the side's dtype can hold, in the dtype of the output."""
    made = torch.Generator().manual_seed(SEED)
    return torch.randn(output.shape, generator=made).to(stored).to(output.dtype)


def _weight_of(parameters: Parameters) -> Tensor | None:
    if not isinstance(parameters, NormParameters | LinearParameters):
        return None
    weight = parameters.weight
    return None if weight is None or weight.numel() > MOST_WEIGHT else weight


def _with_weight(parameters: Parameters, weight: Tensor) -> Parameters:
    assert isinstance(parameters, NormParameters | LinearParameters)
    return replace(parameters, weight=weight)


def equality_of(left: Gradients, right: Gradients) -> Equality:
    """Over all of them; both rounded to the coarser dtype of each."""
    return sum((equality(left[name], right[name]) for name in left), NOTHING)


@dataclass(frozen=True, slots=True)
class _Error:
    """Squares of what is off and of what is right, each tensor in units of its own size."""

    off: float = 0.0
    tensors: int = 0

    @classmethod
    def of(cls, found: Gradients, right: Gradients) -> _Error:
        return cls(sum(relative_error(found[name], right[name]) ** 2 for name in right), len(right))

    def __add__(self, other: _Error) -> _Error:
        return _Error(self.off + other.off, self.tensors + other.tensors)

    @property
    def relative(self) -> float:
        """Root mean square over the tensors."""
        return float((self.off / self.tensors) ** 0.5) if self.tensors else 0.0


def relative_error(found: Tensor, right: Tensor) -> float:
    """‖found − right‖ / ‖right‖; infinite where found is not a number, or right is all zeros."""
    off, size = float((found.double() - right).norm()), float(right.norm())
    if off == 0.0:
        return 0.0
    return off / size if size > 0.0 and off == off else float("inf")
