"""A policy-gradient loss and its gradient: norms, and how far from the fp32 gradient."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from driftscope_probes.dtypes import TrainerMode
from driftscope_probes.trace import Trace


class PolicyLoss:
    """Loss of slices of one rollout; the slices' losses add up to the whole batch's L."""

    def __init__(self, rollout: Trace, seed: int, device: torch.device) -> None:
        lengths = np.diff(rollout.cu_seqlens)
        advantages = np.repeat(balanced_advantages(rollout.sequences, seed), lengths)
        self.tokens = int(rollout.mask.sum())
        self._weights = torch.from_numpy(advantages / max(self.tokens, 1)).to(device)
        self._mask = torch.from_numpy(rollout.mask.copy()).to(device)
        self._rollout = torch.from_numpy(rollout.logprobs.copy()).to(device)

    def of(self, logprobs: Tensor, tokens: slice) -> Tensor:
        """float64 scalar; logprobs: float32 [tokens of the slice], in the graph."""
        counted = self._mask[tokens]
        ratio = (logprobs - self._rollout[tokens])[counted].double().exp()
        return -(self._weights[tokens][counted] * ratio).sum()


def balanced_advantages(sequences: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """[sequences] of +1 and −1, as many of each (one more +1 where the number is odd)."""
    signs = np.where(np.arange(sequences) % 2 == 0, 1.0, -1.0)
    return np.random.default_rng(seed).permutation(signs)


#: torch.amp.GradScaler's initial scale; it halves where gradients overflow, which ours would not.
GRAD_SCALER_INIT = 65_536.0


@dataclass(frozen=True, slots=True)
class GradientReport:
    engine_dtype: str
    trainer_dtype: str
    loss: float | None  # None: not finite
    norm: float | None  # global L2 norm, unscaled, summed in float64; None: not finite
    norm_relative_difference: float | None  # against mode fp32 on the same rollout
    nonfinite_values: int  # gradient entries that are infinite or NaN
    loss_scale: float  # by which the loss was multiplied, and the gradient divided

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def loss_scale(mode: TrainerMode) -> float:
    """FP16 needs a scale: without one most of its gradients fall below 2^-24."""
    return GRAD_SCALER_INIT if mode.compute == "fp16" else 1.0


class GradientMeasurement:
    """Runs the backward pass micro-batch by micro-batch and reads the sum at the end."""

    def __init__(self, model: nn.Module, mode: TrainerMode, rollout: Trace, seed: int) -> None:
        parameters = list(model.parameters())
        model.zero_grad(set_to_none=True)
        self._parameters = parameters
        self._mode = mode
        self._engine_dtype = rollout.meta.dtype
        self._policy = PolicyLoss(rollout, seed, parameters[0].device)
        self._loss = 0.0

    def add(self, logprobs: Tensor, tokens: slice) -> None:
        loss = self._policy.of(logprobs, tokens)
        self._loss += loss.item()
        (loss * loss_scale(self._mode)).backward()  # type: ignore[no-untyped-call]

    def report(self) -> GradientReport:
        """Read the gradient and free it."""
        gradients = [item.grad for item in self._parameters if item.grad is not None]
        nonfinite = sum(int((~torch.isfinite(grad)).sum()) for grad in gradients)
        scale = loss_scale(self._mode)
        squares = sum(norm64(grad) ** 2 for grad in gradients)
        for parameter in self._parameters:
            parameter.grad = None
        return GradientReport(
            engine_dtype=self._engine_dtype,
            trainer_dtype=self._mode.name,
            loss=finite_or_none(self._loss),
            norm=finite_or_none(math.sqrt(squares) / scale),
            norm_relative_difference=None,
            nonfinite_values=nonfinite,
            loss_scale=scale,
        )


def norm64(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def against_fp32(reports: list[GradientReport]) -> list[GradientReport]:
    """Fill in norm_relative_difference where mode fp32 scored the same rollout."""
    reference = {item.engine_dtype: item.norm for item in reports if item.trainer_dtype == "fp32"}
    return [_against(item, reference.get(item.engine_dtype)) for item in reports]


def _against(report: GradientReport, reference: float | None) -> GradientReport:
    if report.norm is None or not reference:
        return report
    return replace(report, norm_relative_difference=(report.norm - reference) / reference)
