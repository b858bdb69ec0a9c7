"""Wrong turns of rotary position embedding, named ones and ones read off an output.

In: the parameters, and for a number the other side's q and k. Out: other parameters or positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import RotaryParameters
from driftscope_kernels.compare_ops.precision import (
    largest_at,
    roundoff,
    shortest_decimal,
)
from driftscope_kernels.compare_ops.rotary_turn import pairs
from driftscope_kernels.compare_ops.variant import Inputs, Outputs, Reason

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


@dataclass(frozen=True, slots=True)
class Fault:
    """Other parameters or other inputs, or both."""

    name: str
    reason: Reason
    says: str
    parameters: Callable[[RotaryParameters], RotaryParameters] = lambda own: own
    inputs: Callable[[Inputs], Inputs] = lambda own: own


def faults_of(parameters: RotaryParameters) -> Iterator[Fault]:
    for base in _BASES:
        if not torch.equal(_frequencies(base, parameters), parameters.inverse_frequencies):
            yield _base(base)
    for factor in (*_FACTORS, *(1 / factor for factor in _FACTORS)):
        yield _linear(factor)
    yield from (_shift(1), _shift(-1))
    yield Fault(
        "positions_run_on",
        "position",
        "positions run on from one sequence to the next",
        inputs=lambda own: replace(own, positions=torch.arange(len(own.positions))),
    )
    yield Fault("positions_restart", "position", "positions begin at 0 anew", inputs=_restarted)
    yield Fault(
        "halves" if parameters.interleaved else "interleaved",
        "formula",
        "pairs are half a head apart" if parameters.interleaved else "pairs stand side by side",
        lambda own: replace(own, interleaved=not own.interleaved),
    )
    yield Fault("reversed", "formula", "pairs turn the other way", _reversed)
    yield Fault(
        "not_turned",
        "position",
        "no pair is turned",
        inputs=lambda own: replace(own, positions=torch.zeros_like(own.positions)),
        parameters=lambda own: replace(own, scaling=1.0),
    )
    if parameters.scaling != 1.0:
        yield Fault(
            "no_scaling",
            "formula",
            f"cosines and sines are not multiplied by {parameters.scaling:g}",
            lambda own: replace(own, scaling=1.0),
        )
    yield Fault(
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


def _base(base: float) -> Fault:
    return Fault(
        f"base={base:g}",
        "position",
        f"the base is {base:g}",
        lambda own: replace(own, inverse_frequencies=_frequencies(base, own)),
    )


def _linear(factor: float) -> Fault:
    return Fault(
        f"linear={factor:g}",
        "position",
        f"positions are divided by {factor:g}",
        lambda own: replace(own, inverse_frequencies=own.inverse_frequencies / factor),
    )


def _shift(by: int) -> Fault:
    return Fault(
        f"shift={by:+d}",
        "position",
        f"positions are shifted by {by:+d}",
        inputs=lambda own: replace(own, positions=own.positions + by),
    )


def _scaled(by: float) -> Fault:
    return Fault(
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


def phases_of(inputs: Inputs, parameters: RotaryParameters, seen: Outputs) -> _Phases:
    turned, length, before, after = torch.zeros(()), 0.0, 0.0, 0.0
    for name, theirs in zip(("q", "k"), seen, strict=True):
        x, out = (_complex(side, parameters) for side in (inputs[name], theirs))
        turned = turned + (out * x.conj()).sum(1)
        length += float((out.abs() * x.abs()).sum())
        before += float(x.abs().square().sum())
        after += float(out.abs().square().sum())
    gain = math.sqrt(after / before) if before else 1.0
    positions = inputs.positions.double()[:, None]
    return _Phases(turned, max(length, 1e-300), gain, roundoff(seen[0].dtype), positions)


def _complex(x: Tensor, parameters: RotaryParameters) -> Tensor:
    x1, x2 = pairs(x.double().reshape(len(x), -1, parameters.head_dim), parameters)
    return torch.complex(x1, x2)


def fits_of(phases: _Phases, parameters: RotaryParameters) -> Iterator[Fault]:
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
