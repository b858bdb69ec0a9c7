"""Why an op differs on equal inputs, where two dumps hold enough to compute it again.

In: ops that differ on tokens with equal inputs, both dumps' weights and configs. Out: both sides'
ways, the reason, and errors against float64; None where weights or numbers are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import EmbeddingParameters, Parameters
from driftscope_kernels.compare_ops.reasons import Reason
from driftscope_kernels.compare_ops.registry import FAMILIES
from driftscope_kernels.compare_ops.variant import Inputs
from driftscope_probes.explain.dumps.comparison import Pair, StepResult
from driftscope_probes.explain.dumps.dump_parameters import DumpParameters
from driftscope_probes.explain.dumps.rows import Dump
from driftscope_probes.explain.faults import UNEXPLAINED_UP_TO, find_fault
from driftscope_probes.explain.groups import rounding_reason
from driftscope_probes.explain.judged import Judged, Seen, judge
from driftscope_probes.explain.sites import Site
from driftscope_probes.explain.ways import FoundWay, find_way


@dataclass(frozen=True, slots=True)
class Explained:
    reason: Reason
    why: str
    engine: FoundWay
    trainer: FoundWay
    judged: Judged


def explained(results: Sequence[StepResult], pair: Pair) -> Explained | None:
    """Of one kind of op. The sites with their tensors are read one at a time."""
    kind = results[0].step.site.kind
    family = FAMILIES.get(kind)
    parameters = _parameters(pair)
    if family is None or any(result.step.between for result in results):
        return None
    known = [result for result in results if _seen(result, pair, parameters) is not None]
    if len(known) < len(results):
        return None

    def reader(result: StepResult, side: int) -> Seen:
        seen = _seen(result, pair, parameters)
        assert seen is not None, result.step.site.key
        return seen[side]

    engine = find_way(family, [partial(reader, one, 0) for one in results])
    trainer = find_way(family, [partial(reader, one, 1) for one in results])
    for result in results:
        mine, theirs = reader(result, 0), reader(result, 1)
        judged = judge(family, mine, theirs)
        exact = engine.exact and trainer.exact
        if not exact and min(judged.engine_off, judged.trainer_off) > UNEXPLAINED_UP_TO:
            why = (
                f"A and B both lie farther from {result.step.names} in float64 than rounding "
                "explains: the dumps' weights or config are not what it computed with."
            )
            return Explained("unknown", why, engine, trainer, judged)
        if judged.fault:
            fault = find_fault(family, mine, theirs, judged)
            side = "A" if fault.side == "engine" else "B"
            why = f"{result.step.names} of {side} is farther off than rounding explains"
            return Explained(fault.reason, f"{why}: {fault.says}.", engine, trainer, judged)
    reason, why = rounding_reason(kind, engine, trainer)
    sides = why.replace("On the engine", "In A").replace("on the trainer", "in B")
    return Explained(reason, sides, engine, trainer, judged)


def _parameters(pair: Pair) -> tuple[DumpParameters, DumpParameters]:
    left, right = pair.left, pair.right

    def of(own: Dump, other: Dump) -> DumpParameters:
        weights = own if own.raw.weights else other
        return DumpParameters(weights, own.raw.config or other.raw.config)

    return of(left, right), of(right, left)


def _seen(
    result: StepResult, pair: Pair, parameters: tuple[DumpParameters, DumpParameters]
) -> tuple[Seen, Seen] | None:
    """Both sides' op on the tokens whose inputs are equal. None: it cannot be computed again."""
    site = result.step.site
    numbers = result.rows.nonzero().flatten()
    dtypes = {pair.left.dtype(p) for p in (*site.inputs.values(), *site.outputs.values())}
    dtypes |= {pair.right.dtype(p) for p in (*site.inputs.values(), *site.outputs.values())}
    if len(dtypes) > 1:
        return None
    tensors = {name: pair.read(place)[0][numbers] for name, place in site.inputs.items()}
    inputs = _inputs(tensors, pair, numbers)
    both = [tuple(side[numbers] for side in pair.read(p)) for p in site.outputs.values()]
    outputs = tuple(one[0] for one in both), tuple(one[1] for one in both)
    mine, theirs = (_of(side, site, tensors, outputs[0]) for side in parameters)
    if mine is None or theirs is None:
        return None
    if isinstance(mine, EmbeddingParameters) and isinstance(theirs, EmbeddingParameters):
        entries = min(len(mine.weight), len(theirs.weight))
        if bool(((inputs.tokens < 0) | (inputs.tokens >= entries)).any()):
            return None
    return Seen(inputs, outputs[0], mine), Seen(inputs, outputs[1], theirs)


def _of(
    parameters: DumpParameters,
    site: Site,
    tensors: dict[str, Tensor],
    outputs: tuple[Tensor, ...],
) -> Parameters | None:
    widths = {name: value.shape[1] for name, value in tensors.items()}
    return parameters.of(site, widths, outputs[-1].shape[1])


def _inputs(tensors: dict[str, Tensor], pair: Pair, numbers: Tensor) -> Inputs:
    facts = pair.rows.facts
    tokens = torch.zeros(facts.rows, dtype=torch.int64) if facts.tokens is None else facts.tokens
    kept = torch.zeros(facts.rows + 1, dtype=torch.int64)
    kept[numbers + 1] = 1
    return Inputs(
        tensors,
        facts.positions[numbers],
        kept.cumsum(0)[facts.cu_seqlens],
        tokens[numbers],
    )
