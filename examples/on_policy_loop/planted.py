"""Faults of a weight sync, planted from a step on: what the weights digest has to name.

Each is one that has happened: to a stock reload, to a framework's loop over parameters, to sleep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from driftscope_kernels.on_policy.sides import engine_model

if TYPE_CHECKING:
    from torch import Tensor

Fault = Callable[[Any, Callable[[], None]], None]  # the trainer, its sync as it is

#: A tensor in the middle of the network, part of a fused one in the engine.
NOT_SENT = "layers.1.self_attn.k_proj.weight"


def sync_of_the_step_before(trainer: Any, sync: Callable[[], None]) -> None:
    """The trainer's step is counted, its weights are not sent: once, so that the next is late."""


def tensor_not_sent(trainer: Any, sync: Callable[[], None]) -> None:
    generation = trainer.vllm_generation
    whole = generation._iter_named_params

    def without() -> Iterator[tuple[str, Tensor]]:
        return ((name, weight) for name, weight in whole() if NOT_SENT not in name)

    generation._iter_named_params = without
    try:
        sync()
    finally:
        generation._iter_named_params = whole


def tied_head_stale(trainer: Any, sync: Callable[[], None]) -> None:
    """As stock vLLM on a CPU: lm_head goes on with what it packed of the embedding before."""
    head = engine_model(trainer).lm_head
    linear, weight = head.cpu_linear, head.weight
    # One product packs what is there now, if nothing has since the last sync.
    linear(weight.new_zeros(1, weight.shape[1]), weight, None)
    packed = linear._packed
    sync()
    linear(weight.new_zeros(1, weight.shape[1]), weight, None)
    linear._packed = packed


def weights_lost(trainer: Any, sync: Callable[[], None]) -> None:
    """As after sleep level 2, which drops weights, when nothing is sent at the awakening."""
    sync()
    engine = engine_model(trainer)
    for name, weight in trainer.vllm_generation._iter_named_params():
        engine.load_weights([(name, weight.new_zeros(weight.shape))])


FAULTS: dict[str, Fault] = {
    "sync_of_the_step_before": sync_of_the_step_before,
    "tensor_not_sent": tensor_not_sent,
    "tied_head_stale": tied_head_stale,
    "weights_lost": weights_lost,
}


def plant(trainer: Any, fault: str, at: int) -> None:
    """From step `at` on every sync of the trainer is faulty."""
    generation = trainer.vllm_generation
    sync = generation.sync_weights

    def faulty() -> None:
        if trainer.state.global_step >= at:
            FAULTS[fault](trainer, sync)
        else:
            sync()

    generation.sync_weights = faulty
