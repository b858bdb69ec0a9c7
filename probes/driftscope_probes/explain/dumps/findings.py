"""What two dumps show, as the report says it.

In: a comparison. Out: the ops that differ on equal inputs, where first, growth, verdict and
sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from torch import Tensor

from driftscope_kernels.compare_ops.equality import compared
from driftscope_kernels.compare_ops.reasons import REASONS, ROUNDING
from driftscope_probes.explain.dumps.comparison import Comparison, Pair, StepResult
from driftscope_probes.explain.dumps.flow import Step
from driftscope_probes.explain.dumps.reasons import explained
from driftscope_probes.explain.explanation import closer, way_of
from driftscope_probes.explain.report import Compared, Errors, First, Growth, Op, Verdict
from driftscope_probes.explain.sites import Place
from driftscope_probes.plural import counted


def compared_of(comparison: Comparison) -> list[Compared]:
    return [
        Compared(
            layer=result.step.site.layer,
            op=result.step.site.kind,
            site=result.step.site.name,
            equal_fraction=result.given_equal.fraction if result.given_equal else None,
            max_ulp=result.given_equal.max_ulp if result.given_equal else None,
            reverse_equal_fraction=None,
            own_inputs_equal_fraction=result.own.fraction,
            beyond_tolerance=None,
            inputs=result.inputs,
            tokens_with_equal_inputs=int(result.rows.sum()),
        )
        for result in comparison.steps
    ]


def first_of(comparison: Comparison, pair: Pair) -> First | None:
    """The first element that differs in the two runs, in the order in which ops run."""
    for result in comparison.steps:
        if not result.own.exact:
            return _first(result, pair, None)
    return None


def ops_of(comparison: Comparison, pair: Pair) -> list[Op]:
    """Ops that differ on equal inputs, over all layers, in the order in which they first run."""
    kinds: dict[tuple[str, ...], list[StepResult]] = {}
    for result in comparison.steps:
        if result.differs_by_itself:
            key = tuple(dict.fromkeys(site.kind for site in result.step.ops))
            kinds.setdefault(key, []).append(result)
    return [_op(results, pair) for results in kinds.values()]


def _op(results: Sequence[StepResult], pair: Pair) -> Op:
    step = results[0].step
    parts = [result.given_equal for result in results if result.given_equal is not None]
    total = parts[0]
    for part in parts[1:]:
        total += part
    layers = {r.step.site.layer for r in results if r.step.site.layer is not None}
    why = explained(results, pair)
    judged = None if why is None else why.judged
    return Op(
        op=step.site.kind,
        label=step.names,
        sites=sorted({result.step.site.name for result in results}),
        layers=sorted(layers),
        equal_fraction=total.fraction,
        max_ulp=total.max_ulp,
        elements=total.elements,
        reverse_equal_fraction=None,
        first=_first(results[0], pair, results[0].rows),
        reason="unknown" if why is None else why.reason,
        why=why_unknown(step) if why is None else why.why,
        engine=way_of(None if why is None else why.engine),
        trainer=way_of(None if why is None else why.trainer),
        trees=[],
        errors=None
        if judged is None
        else Errors(engine=judged.engine_error, trainer=judged.trainer_error),
        closer_to_float64=None if judged is None else closer(judged),
        beyond_tolerance=None if judged is None else judged.apart,
        backward=None,
        swap=None,
    )


def verdict_of(ops: Sequence[Op], comparison: Comparison) -> Verdict:
    if all(seen.equality.exact for seen in comparison.seen.values()):
        return "equal"
    reasons = {op.reason for op in ops}
    if reasons - ROUNDING - {"unknown"}:
        return "fault"
    judged = all(one.given_equal is not None for one in comparison.steps)
    return "rounding" if judged and reasons and reasons <= ROUNDING else "unexplained"


def unjudged_sentence(comparison: Comparison) -> str:
    """Ops of which two dumps show nothing."""
    unjudged = sum(one.given_equal is None for one in comparison.steps)
    if not unjudged:
        return ""
    return (
        f"{unjudged} of {counted(len(comparison.steps), 'op')} have no token with equal inputs "
        "and are not judged."
    )


def why_unknown(step: Step) -> str:
    if step.between:
        return (
            f"{step.names}: nothing between {_names(step.inputs)} and "
            f"{_names(step.outputs)} was captured, so these ops are one here"
        )
    return "the dumps hold no weights or no numbers of the op, so no way of computing it was tried"


def _first(result: StepResult, pair: Pair, rows: Tensor | None) -> First:
    """`rows` bool: only among these."""
    step = result.step
    for place in step.outputs:
        a, b = pair.read(place)
        numbers = None if rows is None else rows.nonzero().flatten()
        equality = compared(a, b) if numbers is None else compared(a[numbers], b[numbers])
        if equality.first is None:
            continue
        found = equality.first
        row = found.row if numbers is None else int(numbers[found.row])
        sequence, position = pair.rows.facts.place_of(row)
        return First(
            layer=step.site.layer,
            op=step.site.kind,
            site=place.name if len(step.outputs) > 1 else step.site.name,
            token=row,
            sequence=sequence,
            position=position,
            feature=found.feature,
            engine=_finite(found.left),
            trainer=_finite(found.right),
            ulp=found.ulps,
            inputs=result.inputs if rows is None else "equal",
        )
    raise ValueError(f"{step.site.key} does not differ")


def growth_of(comparison: Comparison) -> list[Growth]:
    """Of the residual stream before each layer and behind the last, where it was captured."""
    layers = {place.layer for place in comparison.seen if place.layer is not None}
    streams: list[tuple[int | None, Place]] = [
        (layer, Place(layer, "residual_in") if layer else Place(None, "embedding"))
        for layer in sorted(layers)
    ]
    streams.append((None, Place(None, "residual_out")))
    growth: list[Growth] = []
    before = 0.0
    for layer, place in streams:
        seen = comparison.seen.get(place)
        if seen is None or not isfinite(seen.relative):
            continue
        growth.append(
            Growth(
                layer=layer,
                relative_difference=seen.relative,
                amplification=seen.relative / before if before else None,
                abs_diff_mean_after=None,
            )
        )
        before = seen.relative
    return growth


def first_sentence(first: First, results: Sequence[StepResult]) -> str:
    result = next(result for result in results if not result.own.exact)
    step = result.step
    where = "" if first.layer is None else f"layer {first.layer} "
    ulp = "" if first.ulp is None else f", {first.ulp} ULP apart"
    told = (
        f"First difference: {where}{first.site} ({step.names}), token {first.token}, feature "
        f"{first.feature}: {_number(first.engine)} in A, {_number(first.trainer)} in B{ulp}"
    )
    if first.inputs == "equal":
        given = _names(step.inputs) or "the tokens"
        return f"{told}, from bitwise equal inputs ({given})."
    return f"{told}; what it follows from was not captured, so it may come from before."


def _finite(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if isfinite(value) else None


def _number(value: float | None) -> str:
    return "no finite number" if value is None else f"{value:.6g}"


def ops_sentence(ops: Sequence[Op]) -> str:
    told = "; ".join(f"{op.label}{_layers(op.layers)}{_reason(op)}" for op in ops)
    return f"On tokens with bitwise equal inputs these differ: {told}." if ops else ""


def _reason(op: Op) -> str:
    said = next((says for reason, says in REASONS.items() if reason == op.reason), op.reason)
    return "" if op.reason == "unknown" else f": {said}"


def _layers(layers: Sequence[int]) -> str:
    if not layers:
        return ""
    if len(layers) <= 3:
        return f" (layer {', '.join(map(str, layers))})"
    return f" ({counted(len(layers), 'layer')} from {layers[0]} on)"


def _names(places: Sequence[Place] | frozenset[Place]) -> str:
    return ", ".join(sorted(place.key for place in places))
