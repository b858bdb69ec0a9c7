"""Rotary position embedding: pairs of features turned by an angle. Su et al. (2021).

In: q and k, [tokens, heads · head_dim], and positions. Out: q and k turned; features of a head
behind the rotary width are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.choices import Choice, Way, ways
from driftscope_kernels.compare_ops.parameters import RotaryParameters
from driftscope_kernels.compare_ops.precision import (
    FLOAT32,
    input_roundoff,
    largest_at,
    roundoff,
    shortest_decimal,
    smallest,
)
from driftscope_kernels.compare_ops.variant import Family, Inputs, Outputs, Reason, Variant
from driftscope_kernels.reference.arithmetic import fma

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
#: Bases that models are published with.
_BASES: Final = (1e4, 1e5, 5e5, 1e6)
#: Factors of linear scaling (position interpolation) in use.
_FACTORS: Final = (2.0, 4.0, 8.0)
#: Where a base is looked for: Llama's 10⁴ up to long-context bases of 10⁷, a decade around.
_LOG_BASES: Final = (math.log(1e3), math.log(1e8))
_LOG_FACTORS: Final = (math.log(1 / 64), math.log(64))
#: Steps of a coarse search. The angle of a pair at position p moves by p·ω·Δlog base / 2 a step;
#: at p = 100 and the pairs that tell bases apart by less than a turn.
_STEPS: Final = 400
#: Positions further off than that are looked for by no shift.
_SHIFTS: Final = range(-64, 65)
#: Of the turned length: what is left of it once a fit holds in a dtype of 16 bit.
_FITS: Final = 1 - 1e-4
#: Where the share is largest, it is flat: float64 tells logarithms apart no closer than that.
_CLOSEST: Final = 1e-6


class RotaryFamily(Family[RotaryParameters]):
    outputs: Sequence[str] = ("q", "k")

    def reference(self, inputs: Inputs, parameters: RotaryParameters) -> Outputs:
        angles = inputs.positions.double()[:, None] * parameters.inverse_frequencies.double()
        cos, sin = (table(angles) * parameters.scaling for table in (torch.cos, torch.sin))
        turn = _Turn(parameters, lambda a, c, b, s: a * c + b * s)
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
        turn = _Turn(parameters, lambda a, c, b, s: a.abs() * c + b.abs() * s)
        found = []
        for name, right in zip(self.outputs, reference, strict=True):
            x, scale = inputs[name].double(), abs(parameters.scaling)
            moved = input_roundoff(inputs[name], dtype)
            table = (angles * FLOAT32 + 4 * FLOAT32 + smallest(dtype)) * scale
            products = turn.of(x, cos * scale, sin * scale) * (2 * u + 2 * FLOAT32 + moved)
            wide = turn.of(x, table, table)
            # Where the width of the turn ends, nothing is computed.
            turned = _turned_mask(parameters, right)
            total = 1.05 * (products + wide + u * right.abs()) + 4 * smallest(dtype)
            found.append(torch.where(turned, total, moved * right.abs() + smallest(dtype)))
        return tuple(found)

    def variants(self, parameters: RotaryParameters) -> Sequence[Variant[RotaryParameters]]:
        return [_variant(way) for way in _ways()]

    def faults(self, parameters: RotaryParameters) -> Sequence[Variant[RotaryParameters]]:
        return [
            variant for fault in _faults(parameters) for variant in _in_ways_of_the_field(fault)
        ]

    def fitted(
        self, inputs: Inputs, parameters: RotaryParameters, seen: Outputs
    ) -> Sequence[Variant[RotaryParameters]]:
        phases = _phases(inputs, parameters, seen)
        return [
            variant
            for fault in _fits(phases, parameters)
            for variant in _in_ways_of_the_field(fault)
        ]


ROTARY: Final = RotaryFamily()

#: a·c + b·s
_Product = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Turn:
    """o₁ = x₁·cos − x₂·sin, o₂ = x₂·cos + x₁·sin, in the arithmetic of `product`."""

    parameters: RotaryParameters
    product: _Product

    def of(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [tokens, heads · head_dim], cos and sin [tokens, width / 2]."""
        out = x.reshape(len(x), -1, self.parameters.head_dim).clone()
        x1, x2 = _pairs(out, self.parameters)
        cos, sin = cos[:, None], sin[:, None]
        first, second = self.product(x1, cos, -x2, sin), self.product(x2, cos, x1, sin)
        for place, value in zip(_places(self.parameters), (first, second), strict=True):
            out[..., place] = value
        return out.reshape(x.shape)


def _places(parameters: RotaryParameters) -> tuple[slice, slice]:
    half = len(parameters.inverse_frequencies)
    if parameters.interleaved:
        return slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    return slice(0, half), slice(half, 2 * half)


def _pairs(heads: Tensor, parameters: RotaryParameters) -> tuple[Tensor, Tensor]:
    first, second = _places(parameters)
    return heads[..., first].clone(), heads[..., second].clone()


def _turned_mask(parameters: RotaryParameters, like: Tensor) -> Tensor:
    width = 2 * len(parameters.inverse_frequencies)
    return (torch.arange(like.shape[-1]) % parameters.head_dim < width).expand(like.shape)


def _ways() -> Iterator[Way]:
    yield from ways(
        "tables rounded to the dtype, products and sum each rounded to it",
        _ARITHMETIC, _TABLE, _ANGLES,
    )  # fmt: skip


def _variant(way: Way) -> Variant[RotaryParameters]:
    arithmetic, table, angles = way.choices

    def run(inputs: Inputs, parameters: RotaryParameters, dtype: torch.dtype) -> Outputs:
        cos, sin = _tables(inputs.positions, parameters, angles)
        if table == "rounded_table":
            cos, sin = cos.to(dtype), sin.to(dtype)
        return tuple(
            _turned(inputs[name].to(dtype), cos, sin, parameters, arithmetic)
            for name in ROTARY.outputs
        )

    return Variant(way.name, way.reason, way.says, _code(arithmetic, table, angles), run)


def _tables(positions: Tensor, parameters: RotaryParameters, angles: str) -> tuple[Tensor, Tensor]:
    """float32 [tokens, width / 2] each."""
    wide = torch.float64 if angles == "float64_angles" else torch.float32
    turns = positions[:, None].to(wide) * parameters.inverse_frequencies.to(wide)
    cos, sin = turns.cos() * parameters.scaling, turns.sin() * parameters.scaling
    return cos.float(), sin.float()


def _turned(
    x: Tensor, cos: Tensor, sin: Tensor, parameters: RotaryParameters, arithmetic: str
) -> Tensor:
    """Tables that stay in float32 make products in the dtype float32 too, as torch promotes them;
    those are rounded back."""
    if arithmetic == "in_dtype":
        product: _Product = lambda a, c, b, s: (a * c).to(x.dtype) + (b * s).to(x.dtype)  # noqa: E731
        return _Turn(parameters, product).of(x, cos, sin)
    chosen: _Product = {
        "float32": lambda a, c, b, s: a * c + b * s,
        "fused": lambda a, c, b, s: _fma(b, s, a * c),
        "fused_cosine": lambda a, c, b, s: _fma(a, c, b * s),
    }[arithmetic]
    return _Turn(parameters, chosen).of(x.float(), cos.float(), sin.float()).to(x.dtype)


def _fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.from_numpy(fma(a.numpy(), b.numpy(), c.numpy()))


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


@dataclass(frozen=True, slots=True)
class _Fault:
    """Other parameters or other inputs, or both."""

    name: str
    reason: Reason
    says: str
    parameters: Callable[[RotaryParameters], RotaryParameters] = lambda own: own
    inputs: Callable[[Inputs], Inputs] = lambda own: own


def _in_ways_of_the_field(fault: _Fault) -> Iterator[Variant[RotaryParameters]]:
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


def _faults(parameters: RotaryParameters) -> Iterator[_Fault]:
    for base in _BASES:
        if not torch.equal(_frequencies(base, parameters), parameters.inverse_frequencies):
            yield _base(base)
    for factor in (*_FACTORS, *(1 / factor for factor in _FACTORS)):
        yield _linear(factor)
    yield from (_shift(1), _shift(-1))
    yield _Fault(
        "positions_run_on",
        "position",
        "positions run on from one sequence to the next",
        inputs=lambda own: replace(own, positions=torch.arange(len(own.positions))),
    )
    yield _Fault("positions_restart", "position", "positions begin at 0 anew", inputs=_restarted)
    yield _Fault(
        "halves" if parameters.interleaved else "interleaved",
        "formula",
        "pairs are half a head apart" if parameters.interleaved else "pairs stand side by side",
        lambda own: replace(own, interleaved=not own.interleaved),
    )
    yield _Fault("reversed", "formula", "pairs turn the other way", _reversed)
    yield _Fault(
        "not_turned",
        "position",
        "no pair is turned",
        inputs=lambda own: replace(own, positions=torch.zeros_like(own.positions)),
        parameters=lambda own: replace(own, scaling=1.0),
    )
    if parameters.scaling != 1.0:
        yield _Fault(
            "no_scaling",
            "formula",
            f"cosines and sines are not multiplied by {parameters.scaling:g}",
            lambda own: replace(own, scaling=1.0),
        )
    yield _Fault(
        "bf16_frequencies",
        "position",
        "inverse frequencies were rounded to bfloat16",
        lambda own: replace(
            own, inverse_frequencies=own.inverse_frequencies.bfloat16().float()
        ),
    )  # fmt: skip


def _frequencies(base: float, parameters: RotaryParameters) -> Tensor:
    """float32 [width / 2], as transformers and vLLM compute them."""
    width = 2 * len(parameters.inverse_frequencies)
    return 1.0 / (base ** (torch.arange(0, width, 2, dtype=torch.float) / width))


def _base(base: float) -> _Fault:
    return _Fault(
        f"base={base:g}",
        "position",
        f"the base is {base:g}",
        lambda own: replace(own, inverse_frequencies=_frequencies(base, own)),
    )


def _linear(factor: float) -> _Fault:
    return _Fault(
        f"linear={factor:g}",
        "position",
        f"positions are divided by {factor:g}",
        lambda own: replace(own, inverse_frequencies=own.inverse_frequencies / factor),
    )


def _shift(by: int) -> _Fault:
    return _Fault(
        f"shift={by:+d}",
        "position",
        f"positions are shifted by {by:+d}",
        inputs=lambda own: replace(own, positions=own.positions + by),
    )


def _scaled(by: float) -> _Fault:
    return _Fault(
        f"scaling={by:g}",
        "formula",
        f"cosines and sines are multiplied by {by:g}",
        lambda own: replace(own, scaling=by),
    )


def _restarted(inputs: Inputs) -> Inputs:
    lengths = inputs.cu_seqlens.diff()
    starts = torch.repeat_interleave(inputs.cu_seqlens[:-1], lengths)
    return replace(inputs, positions=torch.arange(len(inputs.positions)) - starts)


def _reversed(own: RotaryParameters) -> RotaryParameters:
    return replace(own, inverse_frequencies=-own.inverse_frequencies)


@dataclass(frozen=True, slots=True)
class _Phases:
    """How each pair was turned: Σ over heads of o·conj(x), with pairs as complex numbers."""

    turned: Tensor  # complex128 [tokens, width / 2]
    length: float  # Σ |o|·|x|
    gain: float  # |o| / |x| over all
    error: float  # roundoff of the dtype seen
    positions: Tensor  # float64 [tokens, 1]

    def share(self, frequencies: Tensor, shift: float = 0.0) -> float:
        """Of the turned length that lies where the frequencies put it: 1 where all does."""
        angles = (self.positions + shift) * frequencies.double()
        back = torch.polar(torch.ones_like(angles), -angles)
        return float((self.turned * back).real.sum()) / self.length


def _phases(inputs: Inputs, parameters: RotaryParameters, seen: Outputs) -> _Phases:
    turned, length, before, after = torch.zeros(()), 0.0, 0.0, 0.0
    for name, theirs in zip(ROTARY.outputs, seen, strict=True):
        x, out = (_complex(side, parameters) for side in (inputs[name], theirs))
        turned = turned + (out * x.conj()).sum(1)
        length += float((out.abs() * x.abs()).sum())
        before += float(x.abs().square().sum())
        after += float(out.abs().square().sum())
    gain = math.sqrt(after / before) if before else 1.0
    positions = inputs.positions.double()[:, None]
    return _Phases(turned, max(length, 1e-300), gain, roundoff(seen[0].dtype), positions)


def _complex(x: Tensor, parameters: RotaryParameters) -> Tensor:
    x1, x2 = _pairs(x.double().reshape(len(x), -1, parameters.head_dim), parameters)
    return torch.complex(x1, x2)


def _fits(phases: _Phases, parameters: RotaryParameters) -> Iterator[_Fault]:
    own = parameters.inverse_frequencies
    off = abs(phases.gain / abs(parameters.scaling) - 1)
    if phases.gain > 0 and off > 2 * phases.error:
        width = phases.gain * phases.error
        gain = shortest_decimal(phases.gain - width, phases.gain + width)
        if gain is not None:
            yield _scaled(gain)
    if phases.share(own) > _FITS:
        return
    by = max(_SHIFTS, key=lambda shift: phases.share(own, shift))
    if by and phases.share(own, by) > _FITS:
        yield _shift(by)
    base = _number(phases, lambda log: _frequencies(math.exp(log), parameters), _LOG_BASES)
    if base is not None:
        yield _base(base)
    factor = _number(phases, lambda log: own.double() / math.exp(log), _LOG_FACTORS)
    if factor is not None:
        yield _linear(factor)


def _number(
    phases: _Phases, frequencies: Callable[[float], Tensor], between: tuple[float, float]
) -> float | None:
    """exp of the logarithm whose frequencies fit, if any do: coarse, then by golden section."""

    def share(log: float) -> float:
        return phases.share(frequencies(log))

    step = (between[1] - between[0]) / _STEPS
    coarse = max((between[0] + i * step for i in range(_STEPS + 1)), key=share)
    best = largest_at(share, coarse - step, coarse + step)
    if not share(best) > _FITS:  # not a number either, where an output is none
        return None
    # Phases of many pairs are averaged, so that the fit is closer than one rounding of 16 bit.
    error = max(phases.error, _CLOSEST)
    return shortest_decimal(math.exp(best - error), math.exp(best + error))
