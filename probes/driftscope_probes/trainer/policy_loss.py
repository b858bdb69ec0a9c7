"""The policy-gradient loss whose gradient is compared between precision modes.

L = −(1/N) Σ_i A_i · exp(logp_trainer,i − logp_rollout,i) over the N tokens that the mask counts:
the unclipped surrogate of PPO (Schulman et al. 2017, equation 6), token mean as in DAPO. Advantages
are ±1 per sequence, half of each as after GRPO's normalisation, in an order drawn from the seed.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

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
