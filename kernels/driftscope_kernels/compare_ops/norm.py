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

from driftscope_kernels.compare_ops.choices import Way, ways
from driftscope_kernels.compare_ops.norm_faults import changes_of, epsilon_seen, other_epsilons
from driftscope_kernels.compare_ops.norm_ways import (
    READS,
    axes_of,
    carried,
    code_of,
    exactly_normed,
    normed_rows,
    plain_says,
    weight_of,
)
from driftscope_kernels.compare_ops.parameters import NormParameters
from driftscope_kernels.compare_ops.precision import (
    FLOAT32,
    input_roundoff,
    roundoff,
    smallest,
)
from driftscope_kernels.compare_ops.variant import Family, Inputs, Outputs, Reason, Variant


class NormFamily(Family[NormParameters]):
    outputs: Sequence[str] = ("normed",)

    def reference(self, inputs: Inputs, parameters: NormParameters) -> Outputs:
        return (exactly_normed(self._exact_sum(inputs), parameters),)

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
            for epsilon in other_epsilons(parameters.epsilon)
            for variant in self._epsilon(epsilon, parameters)
        ]
        for name, says, reason, change in changes_of(parameters):
            found += self._with(parameters, change, name, reason, says)
        return found

    def fitted(
        self, inputs: Inputs, parameters: NormParameters, seen: Outputs
    ) -> Sequence[Variant[NormParameters]]:
        epsilon = epsilon_seen(self._exact_sum(inputs), parameters, seen[-1])
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
        lost = smallest(dtype) * (1 + weight_of(parameters, normed).abs())
        moved = self._input_error(inputs, dtype)
        return normed.abs() * relative + lost + carried(moved, self._exact_sum(inputs), parameters)

    def _input_error(self, inputs: Inputs, dtype: torch.dtype) -> Tensor:
        x = inputs["x"]
        return x.double().abs() * input_roundoff(x, dtype)

    def _ways(self, parameters: NormParameters) -> Iterator[Way]:
        yield from ways(plain_says(parameters), *axes_of(parameters))

    def _variant(self, way: Way) -> Variant[NormParameters]:
        def run(inputs: Inputs, parameters: NormParameters, dtype: torch.dtype) -> Outputs:
            x = inputs["x"].to(dtype)
            return (normed_rows(x.float(), parameters, dtype, way.choices),)

        return Variant(way.name, way.reason, way.says, code_of("x", "x.dtype", way.choices), run)

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
        return total, exactly_normed(total, parameters)

    def tolerance(
        self,
        inputs: Inputs,
        parameters: NormParameters,
        dtype: torch.dtype,
        reference: Outputs,
    ) -> Outputs:
        total = reference[0]
        moved = self._input_error(inputs, dtype) + smallest(dtype)
        return moved, self._normed_tolerance(inputs, parameters, dtype, reference[1]) + carried(
            total.abs() * 0 + smallest(dtype), total, parameters
        )

    def faults(self, parameters: NormParameters) -> Sequence[Variant[NormParameters]]:
        return [
            *super().faults(parameters),
            _lost_update(parameters),
            _stale_stream(parameters),
            _twice(parameters, "update"),
            _twice(parameters, "stream"),
        ]

    def _exact_sum(self, inputs: Inputs) -> Tensor:
        return inputs["stream"].double() + inputs["update"].double()

    def _input_error(self, inputs: Inputs, dtype: torch.dtype) -> Tensor:
        """The sum itself is rounded to float32 and then to the dtype."""
        stream, update = inputs["stream"], inputs["update"]
        given = stream.double().abs() * input_roundoff(stream, dtype)
        given = given + update.double().abs() * input_roundoff(update, dtype)
        return given + self._exact_sum(inputs).abs() * (roundoff(dtype) + FLOAT32)

    def _ways(self, parameters: NormParameters) -> Iterator[Way]:
        yield from ways(plain_says(parameters), READS, *axes_of(parameters))

    def _variant(self, way: Way) -> Variant[NormParameters]:
        reads, *choices = way.choices

        def run(inputs: Inputs, parameters: NormParameters, dtype: torch.dtype) -> Outputs:
            wide = inputs["stream"].to(dtype).float() + inputs["update"].to(dtype).float()
            kept = wide.to(dtype)
            read = wide if reads == "float32_sum" else kept.float()
            return kept, normed_rows(read, parameters, dtype, choices)

        total = "stream.float() + update.float()"
        if reads == "rounded_sum":
            total = "stream + update"
        code = code_of("s", "stream.dtype", choices)
        return Variant(way.name, way.reason, way.says, f"s = {total}; {code}", run)


NORM: Final = NormFamily()
RESIDUAL_NORM: Final = ResidualNormFamily()


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


def _twice(parameters: NormParameters, which: str) -> Variant[NormParameters]:
    inner = RESIDUAL_NORM.variants(parameters)[0]

    def run(inputs: Inputs, parameters: NormParameters, dtype: torch.dtype) -> Outputs:
        doubled = {**inputs.tensors, which: 2 * inputs[which]}
        return inner.run(replace(inputs, tensors=doubled), parameters, dtype)

    code = f"F.rms_norm(stream + update + {which}, weight.shape, weight, eps)"
    return Variant(f"{which}_twice", "formula", f"the {which} is added twice", code, run)


def _of_stream(
    parameters: NormParameters, name: str, says: str, kept_sum: bool
) -> Variant[NormParameters]:
    inner = NORM.variants(parameters)[0]

    def run(inputs: Inputs, parameters: NormParameters, dtype: torch.dtype) -> Outputs:
        stream = inputs["stream"].to(dtype)
        (normed,) = inner.run(replace(inputs, tensors={"x": stream}), parameters, dtype)
        return stream + inputs["update"].to(dtype) if kept_sum else stream, normed

    return Variant(name, "formula", says, "F.rms_norm(stream, weight.shape, weight, eps)", run)
