"""Whether half precision has room for this model's activations and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trace import Trace
from driftscope_probes.trainer.forward import OnTokens, decode
from driftscope_probes.trainer.gradient import GRAD_SCALER_INIT, PolicyLoss, finite_or_none
from driftscope_probes.trainer.half_precision_range import (
    FP16_MAX,
    OVERFLOW_FROM,
    HalfPrecisionRange,
    LayerRange,
    LayerRanges,
)
from driftscope_probes.trainer.load import LoadedModel
from driftscope_probes.trainer.microbatch import MicroBatch, micro_batches
from driftscope_probes.trainer.settings import TrainerSettings, trainer_temperature
from driftscope_probes.trainer.token_logprobs import (
    default_chunk_rows,
    row_chunks,
    stream_logits,
    token_logprobs,
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


HEAD_LAYER = "lm_head"


@dataclass(frozen=True, slots=True)
class Headroom:
    sequences: int
    tokens: int  # response tokens, over which the loss is a mean
    loss_scale: float
    layers: list[LayerRange]  # in order of execution; the head's logits last
    verdict: HeadroomVerdict

    def to_dict(self) -> dict[str, Any]:
        activation = max(self.layers, key=lambda layer: layer.activation.largest)
        gradient = max(self.layers, key=lambda layer: layer.gradient.largest)
        logit = next(layer for layer in self.layers if layer.layer == HEAD_LAYER)
        return {
            "mode": "fp32",
            "sequences": self.sequences,
            "tokens": self.tokens,
            "loss_scale": self.loss_scale,
            "safe": self.verdict.safe,
            "sentence": self.verdict.sentence,
            "limit": FP16_MAX,
            "largest_activation": finite_or_none(activation.activation.largest),
            "largest_activation_layer": activation.layer,
            "largest_logit": finite_or_none(logit.activation.largest),
            "largest_gradient": finite_or_none(gradient.gradient.largest),
            "largest_gradient_layer": gradient.layer,
            "layers": [layer.to_dict() for layer in self.layers],
        }


def measure_headroom(
    loaded: LoadedModel,
    prompts: PromptBatch,
    rollout: Trace,
    settings: TrainerSettings,
    on_tokens: OnTokens = lambda _: None,
) -> Headroom:
    """Forward and backward over the first `headroom_sequences` sequences, one at a time.

    One at a time, since padding would count activations that no token has. The loss is that of
    policy_loss.py over these sequences alone: a larger batch has proportionally smaller gradients.
    Where a gradient overflows at GradScaler's first loss scale, it is measured again at the one to
    which GradScaler would back off.
    """
    assert loaded.weights == "fp32", loaded.weights
    prompts, rollout = _first(prompts, rollout, settings.headroom_sequences)
    alone = settings.model_copy(update={"micro_batch": 1})
    loss_scale = GRAD_SCALER_INIT
    layers, tokens = _measure(loaded, prompts, rollout, alone, loss_scale, on_tokens)
    fitting = fitting_scale(layers)
    if fitting < loss_scale:
        loss_scale = fitting
        # Not announced beforehand, so that the reported total stays as planned.
        layers, tokens = _measure(loaded, prompts, rollout, alone, loss_scale, lambda _: None)
    return Headroom(
        sequences=rollout.sequences,
        tokens=tokens,
        loss_scale=loss_scale,
        layers=layers,
        verdict=judge(layers, loss_scale),
    )


def _measure(
    loaded: LoadedModel,
    prompts: PromptBatch,
    rollout: Trace,
    settings: TrainerSettings,
    loss_scale: float,
    on_tokens: OnTokens,
) -> tuple[list[LayerRange], int]:
    """Ranges in order of execution, the head's logits last; response tokens of the loss."""
    policy = PolicyLoss(rollout, settings.seed, loaded.device)
    loaded.model.zero_grad(set_to_none=True)
    torch.manual_seed(settings.seed)
    with torch.enable_grad(), LayerRanges(loaded.model, loss_scale) as ranges:
        for batch in micro_batches(prompts, rollout, settings):
            hidden = decode(loaded, batch).index_select(0, batch.rows.to(loaded.device))
            _add_logits(loaded, hidden.detach(), ranges.of(HEAD_LAYER))
            logprobs = _logprobs(loaded, hidden, batch, trainer_temperature(rollout.meta))
            policy.of(logprobs, batch.tokens).backward()  # type: ignore[no-untyped-call]
            on_tokens(batch.input_ids.numel())
        ranges.add_parameter_gradients()
    loaded.model.zero_grad(set_to_none=True)
    layers = ranges.all()
    layers.sort(key=lambda layer: layer.layer == HEAD_LAYER)
    return layers, policy.tokens


def _first(prompts: PromptBatch, rollout: Trace, sequences: int) -> tuple[PromptBatch, Trace]:
    count = min(sequences, rollout.sequences)
    some = PromptBatch.from_lists([prompts.ids(index) for index in range(count)])
    cu_seqlens = rollout.cu_seqlens[: count + 1].copy()
    tokens = slice(0, int(cu_seqlens[-1]))
    return some, Trace(
        token_ids=np.array(rollout.token_ids[tokens]),
        logprobs=np.array(rollout.logprobs[tokens]),
        cu_seqlens=cu_seqlens,
        mask=np.array(rollout.mask[tokens]),
        meta=rollout.meta,
    )


def _add_logits(loaded: LoadedModel, hidden: Tensor, layer: LayerRange) -> None:
    """Chunk by chunk, as the log-probabilities are computed; before the temperature."""
    chunks = row_chunks(hidden.shape[0], default_chunk_rows(torch.float32))
    weight, bias = loaded.head.weight.detach(), loaded.head.bias
    bias = None if bias is None else bias.detach()
    for chunk in stream_logits(hidden, weight, bias, chunks):
        layer.add_activation(chunk.logits)


def _logprobs(loaded: LoadedModel, hidden: Tensor, batch: MicroBatch, temperature: float) -> Tensor:
    return token_logprobs(
        hidden,
        loaded.head.weight,
        batch.targets.to(loaded.device),
        bias=loaded.head.bias,
        temperature=temperature,
    )
