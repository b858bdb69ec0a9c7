"""Norms of a loaded model with another epsilon, or with the other order of cast and weight.

In: a model of transformers. Out: the same model, changed for as long as a block runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from driftscope_probes.errors import TrainerError
from driftscope_probes.trainer.question import NormCast

#: What transformers' and torch's norms call their epsilon: Llama and Qwen, LayerNorm and Gemma.
EPSILON_NAMES = ("variance_epsilon", "eps", "epsilon")


@contextmanager
def changed_norms(
    model: nn.Module, *, epsilon: float | None, cast: NormCast | None
) -> Iterator[None]:
    """Raises TrainerError where the model has no norm that can be changed so."""
    with _epsilons(model, epsilon), _casts(model, cast):
        yield


@contextmanager
def _epsilons(model: nn.Module, epsilon: float | None) -> Iterator[None]:
    if epsilon is None:
        yield
        return
    norms = [(norm, name) for norm in _norms(model) if (name := _epsilon_name(norm))]
    if not norms:
        raise _unchangeable(model, "an epsilon")
    before = [getattr(norm, name) for norm, name in norms]
    try:
        for norm, name in norms:
            setattr(norm, name, epsilon)
        yield
    finally:
        for (norm, name), value in zip(norms, before, strict=True):
            setattr(norm, name, value)


@contextmanager
def _casts(model: nn.Module, cast: NormCast | None) -> Iterator[None]:
    if cast is None:
        yield
        return
    # Llama's kind: x · rsqrt(mean x² + ε) · weight. LayerNorm and Gemma's (1 + weight) are others.
    norms = [norm for norm in _norms(model) if hasattr(norm, "variance_epsilon")]
    if not norms:
        raise _unchangeable(model, "an RMSNorm of Llama's kind")
    try:
        for norm in norms:
            norm.forward = partial(_rms_norm, norm, cast)
        yield
    finally:
        for norm in norms:
            # An attribute of the instance hid the method of its class.
            del norm.forward


def _rms_norm(norm: Any, cast: NormCast, hidden: Tensor) -> Tensor:
    """In the dtype of `hidden`, as LlamaRMSNorm: float32 up to the cast."""
    dtype = hidden.dtype
    wide = hidden.to(torch.float32)
    scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
    if cast == "before_weight":
        before: Tensor = norm.weight * scaled.to(dtype)
        return before
    after: Tensor = norm.weight.to(torch.float32) * scaled
    return after.to(dtype)


def _norms(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if type(module).__name__.endswith("Norm")]


def _epsilon_name(norm: Any) -> str | None:
    return next(
        (name for name in EPSILON_NAMES if isinstance(getattr(norm, name, None), float)), None
    )


def _unchangeable(model: nn.Module, lacks: str) -> TrainerError:
    return TrainerError(
        f"{type(model).__name__} has no norm with {lacks} that could be changed.",
        remedy="leave the controls of norms out for this model.",
    )
