"""RMSNorm, by itself and of an update added to the residual stream. Zhang and Sennrich (2019).

In: x, or update and stream, and the weight. Out: the normed rows, with the sum before them. Rows
wider than the weight hold several heads, each normed by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.choices import Choice, Way, ways
from driftscope_kernels.compare_ops.parameters import NormParameters
from driftscope_kernels.compare_ops.precision import (
    FLOAT32,
    input_roundoff,
    roundoff,
    shortest_decimal,
    smallest,
)
from driftscope_kernels.compare_ops.variant import Family, Inputs, Outputs, Reason, Variant
from driftscope_kernels.reference.arithmetic import lane_dot
from driftscope_kernels.reference.arrays import widened

#: What residual_norm norms. Hugging Face: the stream as it is kept.
_READS: Final = (
    Choice("rounded_sum"),
    Choice("float32_sum", "rounding_point", "the norm reads the float32 sum"),
)
_LLAMA_WEIGHT: Final = (
    Choice("after_cast"),
    Choice("before_cast", "rounding_point", "the weight multiplies before the cast"),
)
_GEMMA_WEIGHT: Final = (
    Choice("before_cast"),
    Choice("after_cast", "rounding_point", "the weight multiplies after the cast"),
)
_STATISTICS: Final = (
    Choice("float32"),
    Choice("statistics_in_dtype", "dtype", "the mean of squares is taken in the dtype"),
)
_ROOT: Final = (
    Choice("rsqrt"),
    Choice("division", "primitive", "x is divided by the root, not multiplied by its reciprocal"),
    Choice("exact_rsqrt", "primitive", "the reciprocal root is rounded once, as GPUs do"),
)
_SUM: Final = (
    Choice("torch_sum"),
    Choice("lanes", "reduction_order", "squares are added in 16 lanes by fused multiply-add"),
    Choice("float64_sum", "reduction_order", "squares are added without rounding"),
)
#: Epsilons that models are published with.
_EPSILONS: Final = (1e-5, 1e-6, 1e-8, 1e-12)
#: How many standard errors of the mean epsilon seen may be off: 1 in 15,000 by chance.
_ERRORS: Final = 4.0


class NormFamily(Family[NormParameters]):
    outputs: Sequence[str] = ("normed",)

    def reference(self, inputs: Inputs, parameters: NormParameters) -> Outputs:
        return (_right(self._exact_sum(inputs), parameters),)

    def tolerance(
        self,
        inputs: Inputs,
        parameters: NormParameters,
        dtype: torch.dtype,
        reference: Outputs,
    ) -> Outputs:
        return (self._normed_tolerance(inputs, parameters, dtype, reference[-1]),)

    def variants(self, parameters: NormParameters) -> Sequence[Variant[NormParameters]]:
        return [self._variant(way) for way in self._ways(parameters)]

    def faults(self, parameters: NormParameters) -> Sequence[Variant[NormParameters]]:
        found = [
            variant
            for epsilon in _other_epsilons(parameters.epsilon)
            for variant in self._epsilon(epsilon, parameters)
        ]
        for name, says, reason, change in _changes(parameters):
            found += self._with(parameters, change, name, reason, says)
        return found

    def fitted(
        self, inputs: Inputs, parameters: NormParameters, seen: Outputs
    ) -> Sequence[Variant[NormParameters]]:
        epsilon = _epsilon_seen(self._exact_sum(inputs), parameters, seen[-1])
        return [] if epsilon is None else self._epsilon(epsilon, parameters)

    def _exact_sum(self, inputs: Inputs) -> Tensor:
        """float64 [tokens, features]: what is normed."""
        return inputs["x"].double()

    def _normed_tolerance(
        self, inputs: Inputs, parameters: NormParameters, dtype: torch.dtype, normed: Tensor
    ) -> Tensor:
        """Of one element, in roundoffs u of the dtype, relative: x·r, the weight, 1 + weight and
        the result 1 each; mean of squares in the dtype 1.5 (squares, mean and sum with epsilon,
        halved by the root) and its root 1; 8 with room for products of those. Float32 statistics
        add width/2 + 8 of float32.
        """
        u = roundoff(dtype)
        width = parameters.width or normed.shape[-1]
        relative = 8 * u + (width / 2 + 8) * FLOAT32
        # Squares and normed numbers may be subnormal; the weight magnifies the loss of the latter.
        lost = smallest(dtype) * (1 + _weight(parameters, normed).abs())
        moved = self._input_error(inputs, dtype)
        return normed.abs() * relative + lost + _carried(moved, self._exact_sum(inputs), parameters)

    def _input_error(self, inputs: Inputs, dtype: torch.dtype) -> Tensor:
        x = inputs["x"]
        return x.double().abs() * input_roundoff(x, dtype)

    def _ways(self, parameters: NormParameters) -> Iterator[Way]:
        yield from ways(_says(parameters), *_axes(parameters))

    def _variant(self, way: Way) -> Variant[NormParameters]:
        def run(inputs: Inputs, parameters: NormParameters, dtype: torch.dtype) -> Outputs:
            x = inputs["x"].to(dtype)
            return (_normed(x.float(), parameters, dtype, way.choices),)

        return Variant(way.name, way.reason, way.says, _code("x", "x.dtype", way.choices), run)

    def _with(
        self,
        parameters: NormParameters,
        change: Callable[[NormParameters], NormParameters],
        name: str,
        reason: Reason,
        says: str,
    ) -> list[Variant[NormParameters]]:
        """The fault in the ways of the field: an engine's epsilon is read by the engine's kernel.

        Those are the ways that depart in rounding points alone.
        """
        found = []
        for way in self._ways(parameters):
            if way.reason == "rounding_point":
                inner = self._variant(way)
                found.append(_changed(inner, change, name, reason, says))
        return found

    def _epsilon(self, epsilon: float, parameters: NormParameters) -> list[Variant[NormParameters]]:
        return self._with(
            parameters,
            lambda own: replace(own, epsilon=epsilon),
            f"epsilon={epsilon:g}",
            "formula",
            f"epsilon is {epsilon:g}, not {parameters.epsilon:g}",
        )


class ResidualNormFamily(NormFamily):
    outputs: Sequence[str] = ("stream", "normed")

    def reference(self, inputs: Inputs, parameters: NormParameters) -> Outputs:
        total = self._exact_sum(inputs)
        return total, _right(total, parameters)

    def tolerance(
        self,
        inputs: Inputs,
        parameters: NormParameters,
        dtype: torch.dtype,
        reference: Outputs,
    ) -> Outputs:
        total = reference[0]
        moved = self._input_error(inputs, dtype) + smallest(dtype)
        return moved, self._normed_tolerance(inputs, parameters, dtype, reference[1]) + _carried(
            total.abs() * 0 + smallest(dtype), total, parameters
        )

    def faults(self, parameters: NormParameters) -> Sequence[Variant[NormParameters]]:
        return [*super().faults(parameters), _lost_update(parameters), _stale_stream(parameters)]

    def _exact_sum(self, inputs: Inputs) -> Tensor:
        return inputs["stream"].double() + inputs["update"].double()

    def _input_error(self, inputs: Inputs, dtype: torch.dtype) -> Tensor:
        """The sum itself is rounded to float32 and then to the dtype."""
        stream, update = inputs["stream"], inputs["update"]
        given = stream.double().abs() * input_roundoff(stream, dtype)
        given = given + update.double().abs() * input_roundoff(update, dtype)
        return given + self._exact_sum(inputs).abs() * (roundoff(dtype) + FLOAT32)

    def _ways(self, parameters: NormParameters) -> Iterator[Way]:
        yield from ways(_says(parameters), _READS, *_axes(parameters))

    def _variant(self, way: Way) -> Variant[NormParameters]:
        reads, *choices = way.choices

        def run(inputs: Inputs, parameters: NormParameters, dtype: torch.dtype) -> Outputs:
            wide = inputs["stream"].to(dtype).float() + inputs["update"].to(dtype).float()
            kept = wide.to(dtype)
            read = wide if reads == "float32_sum" else kept.float()
            return kept, _normed(read, parameters, dtype, choices)

        total = "stream.float() + update.float()"
        if reads == "rounded_sum":
            total = "stream + update"
        code = _code("s", "stream.dtype", choices)
        return Variant(way.name, way.reason, way.says, f"s = {total}; {code}", run)


NORM: Final = NormFamily()
RESIDUAL_NORM: Final = ResidualNormFamily()


def _axes(parameters: NormParameters) -> tuple[Sequence[Choice], ...]:
    weight: Sequence[Choice] = _GEMMA_WEIGHT if parameters.unit_offset else _LLAMA_WEIGHT
    if parameters.weight is None:
        weight = weight[:1]
    return weight, _STATISTICS, _ROOT, _SUM


def _says(parameters: NormParameters) -> str:
    where = "before" if parameters.unit_offset else "after"
    return f"float32 statistics, the weight multiplies {where} the cast"


def _normed(
    x: Tensor, parameters: NormParameters, dtype: torch.dtype, choices: Sequence[str]
) -> Tensor:
    """`x` float32 [tokens, features]."""
    weight_at, statistics, root, total = choices
    rows = x.reshape(-1, parameters.width or x.shape[-1])
    mean = _mean_square(rows.to(dtype) if statistics == "statistics_in_dtype" else rows, total)
    shifted = mean + parameters.epsilon
    if root == "division":
        scaled = rows / shifted.sqrt().float()
    elif root == "exact_rsqrt":
        scaled = rows * shifted.double().rsqrt().to(shifted.dtype).float()
    else:
        scaled = rows * shifted.rsqrt().float()
    if parameters.weight is not None:
        weight = parameters.weight
        if weight_at == "before_cast":
            scaled = scaled * (weight.float() + 1.0 if parameters.unit_offset else weight.float())
        else:
            scaled = (weight + 1.0 if parameters.unit_offset else weight) * scaled.to(dtype)
    return scaled.to(dtype).reshape(x.shape)


def _mean_square(rows: Tensor, total: str) -> Tensor:
    """[rows, 1] in the dtype of `rows`"""
    if total == "lanes":
        wide = widened(rows)
        summed = torch.from_numpy(lane_dot(wide, wide))[:, None]
        return (summed / rows.shape[-1]).to(rows.dtype)
    if total == "float64_sum":
        return rows.double().pow(2).mean(-1, keepdim=True).to(rows.dtype)
    return rows.pow(2).mean(-1, keepdim=True)


def _right(total: Tensor, parameters: NormParameters) -> Tensor:
    rows = total.reshape(-1, parameters.width or total.shape[-1])
    normed = rows / (rows.square().mean(-1, keepdim=True) + parameters.epsilon).sqrt()
    return normed.reshape(total.shape) * _weight(parameters, total)


def _weight(parameters: NormParameters, like: Tensor) -> Tensor:
    """float64 [features], repeated for every head."""
    if parameters.weight is None:
        return torch.ones(like.shape[-1], dtype=torch.float64)
    weight = parameters.weight.double() + float(parameters.unit_offset)
    return weight.repeat(like.shape[-1] // len(weight))


def _carried(moved: Tensor, total: Tensor, parameters: NormParameters) -> Tensor:
    """How far normed rows move where their elements do by `moved`: directly, and through the root,
    whose relative change is at most Σ|x|·moved / Σx². Twice that, for what first order leaves out.
    """
    width = parameters.width or total.shape[-1]
    rows, shift = total.reshape(-1, width), moved.reshape(-1, width)
    mean = rows.square().mean(-1, keepdim=True) + parameters.epsilon
    root = (rows.abs() * shift).mean(-1, keepdim=True) / mean
    change = 2 * (shift + rows.abs() * root) / mean.sqrt()
    return change.reshape(total.shape) * _weight(parameters, total).abs()


def _code(x: str, dtype: str, choices: Sequence[str]) -> str:
    weight_at, statistics, root, total = choices
    wide = f"{x}.to({dtype})" if statistics == "statistics_in_dtype" else f"{x}.float()"
    mean = f"{wide}.pow(2).mean(-1, True)"
    if total == "lanes":
        mean = f"torch.from_numpy(lane_dot(a := widened({wide}), a))[:, None] / {x}.shape[-1]"
    elif total == "float64_sum":
        mean = f"{wide}.double().pow(2).mean(-1, True).float()"
    scaled = {
        "rsqrt": f"{x}.float() * torch.rsqrt({mean} + eps)",
        "division": f"{x}.float() / torch.sqrt({mean} + eps)",
        "exact_rsqrt": f"{x}.float() * torch.rsqrt(({mean} + eps).double()).float()",
    }[root]
    if weight_at == "before_cast":
        return f"({scaled} * weight.float()).to({dtype})"
    return f"weight * ({scaled}).to({dtype})"


def _other_epsilons(own: float) -> list[float]:
    near = [float(f"{own * 10:.6g}"), float(f"{own / 10:.6g}")]
    return [other for other in dict.fromkeys([*near, *_EPSILONS]) if other != own]


_Change = tuple[str, str, Reason, Callable[[NormParameters], NormParameters]]


def _changes(parameters: NormParameters) -> Iterator[_Change]:
    if parameters.weight is None:
        return
    offset = not parameters.unit_offset
    yield (
        "unit_offset" if offset else "no_unit_offset",
        "the weight is taken as an offset from one" if offset else "one is not added to the weight",
        "formula",
        lambda own: replace(own, unit_offset=offset),
    )
    yield (
        "no_weight",
        "the weight is not applied",
        "formula",
        lambda own: replace(
            own, weight=None if own.weight is None else torch.ones_like(own.weight),
            unit_offset=False,
        ),
    )  # fmt: skip


def _changed(
    inner: Variant[NormParameters],
    change: Callable[[NormParameters], NormParameters],
    name: str,
    reason: Reason,
    says: str,
) -> Variant[NormParameters]:
    def run(inputs: Inputs, parameters: NormParameters, dtype: torch.dtype) -> Outputs:
        return inner.run(inputs, change(parameters), dtype)

    return Variant(f"{name}, {inner.name}", reason, says, inner.code, run)


def _lost_update(parameters: NormParameters) -> Variant[NormParameters]:
    return _of_stream(parameters, "lost_update", "the update is not added", kept_sum=False)


def _stale_stream(parameters: NormParameters) -> Variant[NormParameters]:
    says = "the stream is normed before the update is added"
    return _of_stream(parameters, "norm_before_add", says, kept_sum=True)


def _of_stream(
    parameters: NormParameters, name: str, says: str, kept_sum: bool
) -> Variant[NormParameters]:
    inner = NORM.variants(parameters)[0]

    def run(inputs: Inputs, parameters: NormParameters, dtype: torch.dtype) -> Outputs:
        stream = inputs["stream"].to(dtype)
        (normed,) = inner.run(replace(inputs, tensors={"x": stream}), parameters, dtype)
        return stream + inputs["update"].to(dtype) if kept_sum else stream, normed

    return Variant(name, "formula", says, "F.rms_norm(stream, weight.shape, weight, eps)", run)


def _epsilon_seen(total: Tensor, parameters: NormParameters, seen: Tensor) -> float | None:
    """The other side's epsilon: 1/r² less the mean square, with r = y/(x·weight) by least squares.

    Rows weigh by how exactly they tell it: small ones do. None where they do not tell it from this
    side's.
    """
    width = parameters.width or total.shape[-1]
    rows = (total * _weight(parameters, total)).reshape(-1, width)
    normed, mean = seen.double().reshape(-1, width), total.reshape(-1, width).square().mean(-1)
    own = rows.square().sum(-1)
    root = (normed * rows).sum(-1) / own
    usable = (own > 0) & (root > 0) & root.isfinite() & mean.isfinite()
    if int(usable.sum()) < 2:
        return None
    root, mean = root[usable], mean[usable]
    weight = root**4
    each = root**-2 - mean
    epsilon = float((each * weight).sum() / weight.sum())
    spread = float(((each - epsilon).square() * weight).sum() / weight.sum())
    error = _ERRORS * (spread / len(each)) ** 0.5
    if abs(epsilon - parameters.epsilon) <= error or epsilon + error <= 0:
        return None
    return shortest_decimal(max(epsilon - error, 0.0), epsilon + error)
