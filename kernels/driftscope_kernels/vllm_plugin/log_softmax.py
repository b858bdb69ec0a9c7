"""Log-probabilities of vLLM's sampler through our log_softmax.

Or through one whose sum goes over the vocabulary in tiles, as `ops.token_logprob` adds it up.

In: logits [rows, vocabulary], any dtype. Out: float32, nats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from driftscope_kernels.cpu.backend import operators
from driftscope_kernels.cpu.softmax import log_softmax
from driftscope_kernels.options import VOCABULARY_TILE
from driftscope_kernels.reference.arithmetic import Float32, fma, lane_sum, row_max
from driftscope_kernels.reference.arrays import rounded, widened
from driftscope_kernels.reference.exp import exp
from driftscope_kernels.reference.log import log
from driftscope_kernels.vllm_plugin import patches, rounding

ZERO = np.float32(0)


def tiled_log_softmax(logits: Tensor) -> Tensor:
    """(z − max) − log Σ exp(z − max)."""
    built = operators()
    if built is None or logits.numel() == 0:
        return portable(logits)
    result: Tensor = built.tiled_log_softmax.default(logits, VOCABULARY_TILE, "")
    return result


@np.errstate(all="ignore")
def portable(logits: Tensor) -> Tensor:
    """The same bits without a compiler, as `reference.token_logprob` merges its tiles."""
    wide = widened(logits)
    largest = np.full(len(wide), -np.inf, np.float32)
    total = np.zeros(len(wide), np.float32)
    for start in range(0, wide.shape[1], VOCABULARY_TILE):
        largest, total = _merged(largest, total, wide[:, start : start + VOCABULARY_TILE])
    return rounded((wide - largest[:, None]) - log(total)[:, None], torch.float32)


def _merged(largest: Float32, total: Float32, tile: Float32) -> tuple[Float32, Float32]:
    own = row_max(tile)
    own_total = np.where(own == -np.inf, ZERO, lane_sum(exp(tile - own[:, None])))
    top = np.maximum(largest, own)
    left, right = (exp(np.where(side == top, ZERO, side - top)) for side in (largest, own))
    return top, fma(own_total, right, total * left)


PROCESSED = "processed_logprobs"


def route() -> None:
    from vllm.v1.sample.ops import topk_topp_sampler
    from vllm.v1.sample.sampler import Sampler

    original = topk_topp_sampler.TopKTopPSampler.forward_cpu

    def forward_cpu(
        self: Any,
        logits: Tensor,
        generators: dict[int, torch.Generator],
        k: Tensor | None,
        p: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        if self.logprobs_mode != PROCESSED:
            result: tuple[Tensor, Tensor | None] = original(self, logits, generators, k, p)
            return result
        filtered = topk_topp_sampler.apply_top_k_top_p(logits, k, p)
        logprobs = compute_logprobs(filtered)
        self.logprobs_mode = "raw_logprobs"  # what is to be returned has been computed
        try:
            return original(self, filtered, generators, None, None)[0], logprobs
        finally:
            self.logprobs_mode = PROCESSED

    patches.replace(Sampler, "compute_logprobs", staticmethod(compute_logprobs))
    patches.replace(topk_topp_sampler.TopKTopPSampler, "forward_cpu", forward_cpu)


def compute_logprobs(logits: Tensor) -> Tensor:
    if rounding.in_use().log_softmax == "tiles":
        return tiled_log_softmax(logits)
    return log_softmax(logits, -1, out_dtype=torch.float32)
