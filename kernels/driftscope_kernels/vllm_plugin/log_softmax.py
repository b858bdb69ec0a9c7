"""Log-probabilities of vLLM's sampler through our log_softmax.

Or through one whose sum goes over the vocabulary in tiles, as `ops.token_logprob` adds it up.

In: logits [rows, vocabulary], any dtype. Out: float32, nats.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.cpu.softmax import log_softmax
from driftscope_kernels.cpu.tiled_log_softmax import tiled_log_softmax
from driftscope_kernels.vllm_plugin import patches, rounding

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
