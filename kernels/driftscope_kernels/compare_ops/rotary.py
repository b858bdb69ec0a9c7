"""Rotary position embedding: pairs of features turned by an angle. Su et al. (2021).

In: q and k, [tokens, heads · head_dim], and positions. Out: q and k turned; features of a head
behind the rotary width are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import torch

from driftscope_kernels.compare_ops.choices import Choice, Way, ways
from driftscope_kernels.compare_ops.parameters import RotaryParameters
from driftscope_kernels.compare_ops.precision import (
    FLOAT32,
    input_roundoff,
    roundoff,
    smallest,
)
from driftscope_kernels.compare_ops.rotary_faults import Fault, faults_of, fits_of, phases_of
from driftscope_kernels.compare_ops.rotary_turn import Turn, is_turned, tables_of, turned_by
from driftscope_kernels.compare_ops.variant import Family, Inputs, Outputs, Variant

_ARITHMETIC: Final = (
    Choice("in_dtype"),
    # Of 16-bit numbers it equals the fused ones, whose products float32 holds exactly: named first.
    Choice("float32", "rounding_point", "products and sum are float32, rounded once"),
    Choice("fused", "primitive", "a fused multiply-add in float32 is rounded once"),
    Choice("fused_cosine", "primitive", "the product with the cosine is fused, rounded once"),
)
_TABLE: Final = (
    Choice("rounded_table"),
    Choice("float32_table", "rounding_point", "cosines and sines stay in float32"),
)
_ANGLES: Final = (
    Choice("float32_angles"),
    Choice("float64_angles", "dtype", "angles, cosines and sines are computed in float64"),
)


class RotaryFamily(Family[RotaryParameters]):
    outputs: Sequence[str] = ("q", "k")

    def reference(self, inputs: Inputs, parameters: RotaryParameters) -> Outputs:
        angles = inputs.positions.double()[:, None] * parameters.inverse_frequencies.double()
        cos, sin = (table(angles) * parameters.scaling for table in (torch.cos, torch.sin))
        turn = Turn(parameters, lambda a, c, b, s: a * c + b * s)
        return tuple(turn.of(inputs[name].double(), cos, sin) for name in self.outputs)

    def tolerance(
        self,
        inputs: Inputs,
        parameters: RotaryParameters,
        dtype: torch.dtype,
        reference: Outputs,
    ) -> Outputs:
        """|x₁·cos| + |x₂·sin| times: table and product 1 roundoff u of the dtype each; the result
        1 u of itself. A float32 angle is off by u of itself, and its table by 4 u: SLEEF's cosine
        has one ulp, the factor another rounding. 1.05: products of two u in bfloat16.
        """
        u = roundoff(dtype)
        angles = inputs.positions.double()[:, None] * parameters.inverse_frequencies.double()
        cos, sin = angles.cos().abs(), angles.sin().abs()
        turn = Turn(parameters, lambda a, c, b, s: a.abs() * c + b.abs() * s)
        found = []
        for name, right in zip(self.outputs, reference, strict=True):
            x, scale = inputs[name].double(), abs(parameters.scaling)
            moved = input_roundoff(inputs[name], dtype)
            table = (angles * FLOAT32 + 4 * FLOAT32 + smallest(dtype)) * scale
            products = turn.of(x, cos * scale, sin * scale) * (2 * u + 2 * FLOAT32 + moved)
            wide = turn.of(x, table, table)
            # Where the width of the turn ends, nothing is computed.
            turned = is_turned(parameters, right)
            total = 1.05 * (products + wide + u * right.abs()) + 4 * smallest(dtype)
            found.append(torch.where(turned, total, moved * right.abs() + smallest(dtype)))
        return tuple(found)

    def variants(self, parameters: RotaryParameters) -> Sequence[Variant[RotaryParameters]]:
        return [_variant(way) for way in _ways()]

    def faults(self, parameters: RotaryParameters) -> Sequence[Variant[RotaryParameters]]:
        return [
            variant for fault in faults_of(parameters) for variant in _in_ways_of_the_field(fault)
        ]

    def fitted(
        self, inputs: Inputs, parameters: RotaryParameters, seen: Outputs
    ) -> Sequence[Variant[RotaryParameters]]:
        phases = phases_of(inputs, parameters, seen)
        return [
            variant
            for fault in fits_of(phases, parameters)
            for variant in _in_ways_of_the_field(fault)
        ]


ROTARY: Final = RotaryFamily()


def _ways() -> Iterator[Way]:
    yield from ways(
        "tables rounded to the dtype, products and sum each rounded to it",
        _ARITHMETIC, _TABLE, _ANGLES,
    )  # fmt: skip


def _variant(way: Way) -> Variant[RotaryParameters]:
    arithmetic, table, angles = way.choices

    def run(inputs: Inputs, parameters: RotaryParameters, dtype: torch.dtype) -> Outputs:
        cos, sin = tables_of(inputs.positions, parameters, angles)
        if table == "rounded_table":
            cos, sin = cos.to(dtype), sin.to(dtype)
        return tuple(
            turned_by(inputs[name].to(dtype), cos, sin, parameters, arithmetic)
            for name in ROTARY.outputs
        )

    return Variant(way.name, way.reason, way.says, _code(arithmetic, table, angles), run)


def _code(arithmetic: str, table: str, angles: str) -> str:
    wide = "double" if angles == "float64_angles" else "float"
    rounded = "float()" if table == "float32_table" else "to(x.dtype)"
    tables = f"t = positions[:, None].{wide}() * inv_freq.{wide}(); "
    tables += f"c, s = (f(t).float().{rounded}.unsqueeze(1) for f in (torch.cos, torch.sin)); "
    return (
        tables
        + {
            "in_dtype": "o1 = (x1 * c).to(x.dtype) - (x2 * s).to(x.dtype)",
            "float32": "o1 = (x1.float() * c.float() - x2.float() * s.float()).to(x.dtype)",
            "fused": "o1 = (x1.float() * c.float() - x2.double() * s.double()).to(x.dtype)",
            "fused_cosine": "o1 = (x1.double() * c.double() - x2.float() * s.float()).to(x.dtype)",
        }[arithmetic]
    )


def _in_ways_of_the_field(fault: Fault) -> Iterator[Variant[RotaryParameters]]:
    """An engine's wrong base is turned with the engine's arithmetic."""
    for way in _ways():
        _, table, angles = way.choices
        if (table, angles) != ("rounded_table", "float32_angles"):
            continue
        inner = _variant(way)

        def run(
            inputs: Inputs,
            parameters: RotaryParameters,
            dtype: torch.dtype,
            inner: Variant[RotaryParameters] = inner,
        ) -> Outputs:
            return inner.run(fault.inputs(inputs), fault.parameters(parameters), dtype)

        name = f"{fault.name}, {inner.name}"
        yield Variant(name, fault.reason, fault.says, inner.code, run)
