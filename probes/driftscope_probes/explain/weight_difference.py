"""How two tensors that should be equal differ, in words: what was done to one of them.

In: the same weight of both sides, in one dtype. Out: fraction of equal elements, the largest
difference, and the first of these that holds: elements are not finite, rows or columns in another
order, transposed, zero, a few elements, one block, rounded, scaled, of low rank, a small change of
all of it, other weights altogether.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from driftscope_probes.explain.report import WeightDifference

#: So few elements are named one by one.
FEW: Final = 8
#: A factor or a change is only read off where it leaves less than this share of the difference.
_EXPLAINED: Final = 0.1
#: Merging a low-rank change into a weight rounds every element once: a uniform error of half a
#: step, 1/√12 of a step in the mean. Twice that is never reached by rounding alone.
_ROUNDING: Final = 2.0 / 12**0.5
#: Of the smaller side of a matrix; LoRA ranks are below it, a step of an optimiser is not.
_LOW_RANK: Final = 1 / 8
#: Ranks that are looked for in a matrix too large to be decomposed.
_MOST_RANKS: Final = 64
_WHOLE_DECOMPOSITION: Final = 1 << 20  # elements: 0.1 s on one thread
#: Formats that weights are rounded through, coarsest first.
_FORMATS: Final = (torch.float8_e5m2, torch.float8_e4m3fn, torch.bfloat16, torch.float16)
_FIRST: Final = 4096
#: Below this the two have nothing in common; two steps of training apart they have 0.9999.
_UNRELATED: Final = 0.1
_SMALL: Final = 0.1  # relative: a step, or a hundred


def weight_difference(
    tensor: str, engine: Tensor, trainer: Tensor, *, decompose: bool = True
) -> WeightDifference | None:
    """None where all elements are equal; a zero is equal to its negative.

    `engine` and `trainer` have one shape and one dtype. Without `decompose` no low rank is looked
    for, which takes longest.
    """
    engine, trainer = engine.cpu(), trainer.cpu()
    same = (engine == trainer) | (engine.isnan() & trainer.isnan())
    if bool(same.all()):
        return None
    apart = (engine.float() - trainer.float()).abs()
    return WeightDifference(
        tensor=tensor,
        equal_fraction=int(same.sum()) / same.numel(),
        max_abs=float(apart.nan_to_num(nan=torch.inf).max()),
        says=_says(engine, trainer, same, decompose),
    )


def _says(engine: Tensor, trainer: Tensor, same: Tensor, decompose: bool) -> str:
    for name, side in (("engine", engine), ("trainer", trainer)):
        lost = int((~side.isfinite()).sum())
        if lost:
            return f"{lost:,} elements of the {name}'s are not finite"
    for name, side in (("engine", engine), ("trainer", trainer)):
        if not bool(side.any()):
            return f"the {name}'s is all zeros"
    matrices = [side.reshape(-1, side.shape[-1]) for side in (engine, trainer)]
    return (
        _order(*matrices)
        or _few(engine, trainer, same)
        or _rounded(engine, trainer)
        or _scaled(engine, trainer)
        or _block(same.reshape(matrices[0].shape))
        or (_rank(*matrices) if decompose else None)
        or _change(engine, trainer)
    )


def _few(engine: Tensor, trainer: Tensor, same: Tensor) -> str | None:
    places = (~same).nonzero()
    if len(places) > FEW:
        return None
    words = []
    for place in places.tolist():
        here = tuple(place)
        pair = torch.stack([engine[here], trainer[here]])
        steps = int(_ordered(pair).diff().abs())
        words.append(f"{place} by {steps:,} ULP")
    total, plural = same.numel(), "s" if len(places) > 1 else ""
    return f"{len(places)} element{plural} of {total:,}: {', '.join(words)}"


def _ordered(values: Tensor) -> Tensor:
    """Bit patterns as integers in the order of the values."""
    bits, width = (torch.int16, 16) if values.element_size() == 2 else (torch.int32, 32)
    numbers = values.view(bits).long()
    return torch.where(numbers < 0, -(numbers + (1 << (width - 1))), numbers)


def _order(engine: Tensor, trainer: Tensor) -> str | None:
    if engine.shape[0] == engine.shape[1] and torch.equal(engine, trainer.t()):
        return "transposed"
    for name, mine, other in (
        ("rows", engine, trainer),
        ("columns", engine.t(), trainer.t()),
    ):
        moved = (mine != other).any(dim=1).nonzero().flatten()
        if len(moved) > 1 and _same_rows(mine[moved], other[moved]):
            first, last = int(moved[0]), int(moved[-1])
            if len(moved) == len(mine):
                return f"all {name} are there, in another order"
            return f"one block of {name} {first}-{last} permuted, all else equal"
    return None


def _same_rows(mine: Tensor, other: Tensor) -> bool:
    """Whether each row of one is a row of the other."""
    # Rows are told apart by a random projection: equal rows have equal projections.
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn((mine.shape[1],), generator=generator)
    keys, orders = zip(
        *[(side.float() * direction).sum(1).sort(stable=True) for side in (mine, other)],
        strict=True,
    )
    return torch.equal(*keys) and torch.equal(mine[orders[0]], other[orders[1]])


def _block(same: Tensor) -> str | None:
    for name, differs in (("rows", (~same).any(1)), ("columns", (~same).any(0))):
        places = differs.nonzero().flatten()
        if 2 * len(places) <= len(differs):
            first, last = int(places[0]), int(places[-1])
            if last - first + 1 == len(places):
                which = f"{name} {first}-{last}" if last > first else f"{name[:-1]} {first}"
                return f"{which} of {len(differs):,}, all else equal"
            return f"{len(places):,} of {len(differs):,} {name}, all else equal"
    return None


def _rounded(engine: Tensor, trainer: Tensor) -> str | None:
    sides = (("engine", engine, trainer), ("trainer", trainer, engine))
    for name, coarse, fine in sides:
        for dtype in _FORMATS:
            if dtype == fine.dtype:
                continue
            # The first few elements tell nearly always that it is not so.
            firsts = [side.flatten()[:_FIRST] for side in (fine, coarse)]
            if all(
                torch.equal(mine.to(dtype).to(mine.dtype), other)
                for mine, other in (firsts, (fine, coarse))
            ):
                return f"the {name}'s is rounded to {str(dtype).removeprefix('torch.')}"
    return None


def _scaled(engine: Tensor, trainer: Tensor) -> str | None:
    mine, other = engine.float(), trainer.float()
    factor = _dot(mine, other) / _dot(other, other)
    left, apart = mine - factor * other, mine - other
    step = torch.finfo(engine.dtype).eps * _ROUNDING * _norm(mine)
    if abs(factor) > 0 and _norm(left) <= min(step, _EXPLAINED * _norm(apart)):
        return f"the engine's is the trainer's times {factor:.4g}"
    return None


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum(dtype=torch.float64))


def _norm(a: Tensor) -> float:
    return float(_dot(a, a) ** 0.5)


def _rank(engine: Tensor, trainer: Tensor) -> str | None:
    most = int(min(engine.shape) * _LOW_RANK)
    if most < 1:
        return None
    apart = engine.float() - trainer.float()
    if apart.numel() <= _WHOLE_DECOMPOSITION:
        values = torch.linalg.svdvals(apart)
    else:
        torch_state = torch.random.get_rng_state()
        torch.manual_seed(0)
        values = torch.svd_lowrank(apart, q=min(_MOST_RANKS, most) + FEW)[1]
        torch.random.set_rng_state(torch_state)
    noise = torch.finfo(engine.dtype).eps * _ROUNDING * _norm(engine.float())
    total = _dot(apart, apart)
    left = (total - values.double().square().cumsum(0)).clamp(min=0.0).sqrt()
    enough = (left <= min(noise, _EXPLAINED * total**0.5)).nonzero().flatten()
    if len(enough) and int(enough[0]) < most:
        rank = int(enough[0]) + 1
        return f"rank-{rank} difference, as an adapter that one side alone has merged"
    return None


def _change(engine: Tensor, trainer: Tensor) -> str:
    mine, other = engine.float(), trainer.float()
    cosine = _dot(mine, other) / (_norm(mine) * _norm(other))
    size = _norm(mine - other) / _norm(other)
    if abs(cosine) < _UNRELATED:
        return f"all of it: other weights altogether (cosine {cosine:.3f})"
    if size < _SMALL:
        return f"all of it, by {size:.1e} of its size: as of other steps of one training"
    return f"all of it, by {size:.0%} of its size (cosine {cosine:.3f})"
