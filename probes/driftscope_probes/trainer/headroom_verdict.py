"""Whether a switch to FP16 looks safe. In: ranges by layer. Out: a verdict and one sentence.

Safe means: every activation and logit stays MARGIN below FP16's limit, and the gradients fit
without a loss scale or with it: nothing overflows and few values vanish.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from driftscope_probes.trainer.gradient import GRAD_SCALER_INIT
from driftscope_probes.trainer.half_precision_range import (
    FP16_MAX,
    OVERFLOW_FROM,
    HalfPrecisionRange,
    LayerRange,
)

#: One bit. Only a few sequences at one moment of training were seen; other prompts and later
#: weights may reach higher. A judgement, not a bound.
MARGIN = 2.0
#: Below this many times the limit is nearer than three bits, and the sentence says so. The largest
#: activations of a Llama sit in the residual stream of a few positions and hardly depend on the
#: prompt (Sun et al. 2024, "Massive Activations in Large Language Models"), so that a small
#: distance may last; but training can move it.
CLOSE = 8.0
#: Fraction of non-zero gradient values that may vanish. A judgement: the smallest do not matter
#: (Micikevicius et al. 2018, section 3.2: those below 2^-27 did not matter to a detector that
#: failed to train without loss scaling), and a scale that adapts recovers more.
VANISHING_LIMIT = 0.01
#: The smallest fraction written out.
SHOWN_SHARE = 0.0001


@dataclass(frozen=True, slots=True)
class HeadroomVerdict:
    safe: bool
    sentence: str


def judge(layers: Sequence[LayerRange], loss_scale: float) -> HeadroomVerdict:
    highest = max(layers, key=lambda layer: layer.activation.largest)
    if highest.activation.largest * MARGIN > FP16_MAX:
        return HeadroomVerdict(False, _too_high(highest))
    plain, scaled = (_total(layers, pick) for pick in (_gradient, _scaled_gradient))
    gradients = (
        f"of the gradient values {_percent(plain)} vanish without loss scaling, "
        f"{_percent(scaled)} with a scale of {loss_scale:,.0f}"
    )
    if not (_fits(plain) or _fits(scaled)):
        overflowing = scaled.overflow or plain.overflow
        more = f", and {overflowing} overflow" if overflowing else ""
        return HeadroomVerdict(False, f"FP16 does not look safe: {gradients}{more}.")
    advice = "" if _fits(plain) else "; use loss scaling"
    if loss_scale < GRAD_SCALER_INIT:
        advice += f"; {GRAD_SCALER_INIT:,.0f} overflows, so let the scale adapt"
    elif scaled.overflow:
        advice += f"; {scaled.overflow} overflow at that scale, so let the scale adapt"
    return HeadroomVerdict(
        True, f"FP16 looks safe here: {_distance(highest)}, and {gradients}{advice}."
    )


def fitting_scale(layers: Sequence[LayerRange]) -> float:
    """The largest power of two up to GradScaler's first at which no gradient overflows.

    GradScaler (torch.amp) starts at 65,536 and halves after every overflow. 1 where even unscaled
    gradients overflow or are not finite.
    """
    largest = max(layer.gradient.largest for layer in layers)
    scale = GRAD_SCALER_INIT
    while scale > 1.0 and largest * scale >= OVERFLOW_FROM:
        scale /= 2.0
    return scale


def _distance(layer: LayerRange) -> str:
    largest = layer.activation.largest
    times = FP16_MAX / max(largest, 1.0)
    shown = f"{times:.1f}" if times < CLOSE else f"{times:,.0f}"
    close = " (close: watch it while training)" if times < CLOSE else ""
    return (
        f"the largest activation, {largest:,.1f} in {layer.layer}, is {shown} times below the "
        f"limit of 65,504{close}"
    )


def _too_high(layer: LayerRange) -> str:
    largest = layer.activation.largest
    value = f"reach {largest:,.0f}" if math.isfinite(largest) else "are not finite"
    where = "above" if largest > FP16_MAX else f"less than {MARGIN:.0f} times below"
    return (
        f"FP16 does not look safe: activations in {layer.layer} {value}, {where} FP16's limit of "
        "65,504; keep this layer in BF16 or float32."
    )


def _gradient(layer: LayerRange) -> HalfPrecisionRange:
    return layer.gradient


def _scaled_gradient(layer: LayerRange) -> HalfPrecisionRange:
    return layer.scaled_gradient


def _total(
    layers: Sequence[LayerRange], pick: Callable[[LayerRange], HalfPrecisionRange]
) -> HalfPrecisionRange:
    total = HalfPrecisionRange()
    for part in map(pick, layers):
        total.largest = max(total.largest, part.largest)
        total.values += part.values
        total.overflow += part.overflow
        total.underflow += part.underflow
    return total


def _fits(gradients: HalfPrecisionRange) -> bool:
    vanishing = gradients.share(gradients.underflow)
    return gradients.overflow == 0 and vanishing <= VANISHING_LIMIT


def _percent(gradients: HalfPrecisionRange) -> str:
    """0 only where no value vanishes."""
    if gradients.underflow == 0:
        return "none"
    share = gradients.share(gradients.underflow)
    return f"{share:.2%}" if share >= SHOWN_SHARE else f"below {SHOWN_SHARE:.2%}"
