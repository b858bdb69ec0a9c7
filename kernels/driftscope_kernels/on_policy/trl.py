"""TRL's trainers on our kernels, the engine's too: a mixin.

    class Trainer(DriftscopeMixin, OnPolicyMixin, GRPOTrainer): ...

Sampling by vLLM on the CPU in this process (vllm_mode="colocate"), scoring, backward and weight
sync are then bitwise one model: log-probabilities agree in every bit at every step. Without
DriftscopeMixin nothing is pushed, and the numbers are the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels import vllm_plugin
from driftscope_kernels.invariant_mode import invariant_mode
from driftscope_kernels.on_policy.sides import causal_model, engine_model
from driftscope_kernels.on_policy.token_scores import check_model, completion_scores
from driftscope_kernels.on_policy.weights.colocated import colocated_digest
from driftscope_kernels.on_policy.weights.recorded import WeightsDigest
from driftscope_kernels.vllm_plugin.coverage import coverage
from driftscope_kernels.vllm_plugin.rounding import (
    INVARIANT,
    KERNELS_VARIABLE,
    LOADABLE_VARIABLE,
    STOCK,
)


class LoadableMixin:
    """Before GRPOTrainer among the bases: vLLM's own kernels on the CPU, with weights that TRL can

    write, which it cannot without. The control for OnPolicyMixin: nothing is exact here.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        os.environ[KERNELS_VARIABLE], os.environ[LOADABLE_VARIABLE] = STOCK, "1"
        vllm_plugin.register()
        super().__init__(*arguments, **named)

    def weights_digest(self) -> WeightsDigest | None:
        """As OnPolicyMixin's; vLLM packs its layers out of sight, and of them the plain weights
        count, which it packs from."""
        return colocated_digest(self, exact=False)


class OnPolicyMixin:
    """Before GRPOTrainer among the bases. Raises ValueError on what would not be exact."""

    exact = True

    def __init__(self, *arguments: Any, **named: Any) -> None:
        # vLLM reads it when the trainer makes the engine.
        os.environ[KERNELS_VARIABLE] = INVARIANT
        vllm_plugin.register()
        super().__init__(*arguments, **named)
        check_trainer(self)
        accelerator = self.accelerator  # type: ignore[attr-defined]
        accelerator.backward = _invariant(accelerator.backward)

    def weights_digest(self) -> WeightsDigest | None:
        """Whether the engine computes with the trainer's weights; DriftscopeMixin pushes it."""
        return colocated_digest(self, exact=True)

    def _get_per_token_logps_and_entropies(
        self: Any,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **images: Any,
    ) -> tuple[Tensor, Tensor | None, None]:
        """As TRL's of a text model: [B, logits_to_keep] each."""
        given = [name for name, value in images.items() if value is not None]
        if compute_aux_loss or given:
            raise ValueError(
                f"{', '.join(given) or 'the load-balancing loss'}: the invariant trainer scores "
                "text, without an auxiliary loss (router_aux_loss_coef=0)."
            )
        causal = causal_model(self.accelerator.unwrap_model(model))
        rows = batch_size or len(input_ids)
        with invariant_mode():
            parts = [
                completion_scores(causal, ids, mask, logits_to_keep, self.temperature)
                for ids, mask in zip(
                    torch.split(input_ids, rows), torch.split(attention_mask, rows), strict=True
                )
            ]
        logprobs = torch.cat([part.logprobs for part in parts])
        if not compute_entropy:
            return logprobs, None, None
        return logprobs, torch.cat([part.entropies for part in parts]), None


def check_trainer(trainer: Any) -> None:
    """Raises ValueError with what would not be exact, and what to set."""
    if trainer.accelerator.device.type != "cpu" or trainer.accelerator.num_processes > 1:
        raise ValueError(
            f"{trainer.accelerator.num_processes} processes on {trainer.accelerator.device}: the "
            "invariant trainer runs in one process on the CPU; set use_cpu=True."
        )
    if trainer.accelerator.mixed_precision != "no":
        raise ValueError(
            f"mixed precision {trainer.accelerator.mixed_precision}: the trainer's forward has to "
            "run in the engine's dtype; load the model in it and set bf16=False, fp16=False."
        )
    if not trainer.use_vllm or trainer.vllm_mode != "colocate":
        raise ValueError('the engine is to be in this process: use_vllm=True, vllm_mode="colocate"')
    check_model(causal_model(trainer.model))
    _check_dtype(trainer)
    _check_coverage(trainer)


def _check_dtype(trainer: Any) -> None:
    engine = trainer.vllm_generation.llm.llm_engine.model_config.dtype
    own = next(trainer.model.parameters()).dtype
    if own != engine:
        raise ValueError(
            f"the trainer's weights are {own}, the engine's {engine}; save the model in the dtype "
            "that it is loaded in, since TRL has no setting for the engine's."
        )


def _check_coverage(trainer: Any) -> None:
    engine = engine_model(trainer)
    uncovered = coverage(engine).uncovered
    if uncovered:
        raise ValueError(
            f"{', '.join(uncovered)}: these layers of {type(engine).__name__} run vLLM's own code, "
            "and the trainer's would differ; use LoadableMixin, with which nothing is exact, or a "
            "model without them (Llama, Mistral, Qwen2, Qwen3, Qwen3-MoE)."
        )


def _invariant(backward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(backward)
    def run(*arguments: Any, **named: Any) -> Any:
        with invariant_mode():
            return backward(*arguments, **named)

    return run
