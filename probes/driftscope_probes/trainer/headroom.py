"""The room that FP16 leaves: a float32 forward and backward pass, measured against FP16's range.

In: a float32 model, prompts and a rollout. Out: Headroom with a verdict. Measured in float32, since
in FP16 itself what overflows early hides what would have overflowed later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trace import Trace
from driftscope_probes.trainer.forward import OnTokens, decode
from driftscope_probes.trainer.gradient import GRAD_SCALER_INIT, PolicyLoss, finite_or_none
from driftscope_probes.trainer.half_precision_range import FP16_MAX, LayerRange, LayerRanges
from driftscope_probes.trainer.headroom_verdict import HeadroomVerdict, fitting_scale, judge
from driftscope_probes.trainer.load import LoadedModel
from driftscope_probes.trainer.microbatch import MicroBatch, micro_batches
from driftscope_probes.trainer.settings import TrainerSettings, trainer_temperature
from driftscope_probes.trainer.token_logprobs import (
    default_chunk_rows,
    row_chunks,
    stream_logits,
    token_logprobs,
)

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
