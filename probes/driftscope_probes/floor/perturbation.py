"""Log-probabilities of the FP32 model with the noise of a coarser format put in by hand.

One rounding to a format with unit roundoff u errs by 0.425 u of the value, root mean square. The
noise goes in where that format would store a tensor, and the model itself carries it to the
logits: what comes out is a tolerance that no kernel, and no bug of one, had a part in.

In: a model in float32 and one micro-batch. Out: float32 log-probabilities [tokens scored], in nats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from driftscope_probes.dtypes import Dtype
from driftscope_probes.floor.ways import Where
from driftscope_probes.trainer.forward import decode
from driftscope_probes.trainer.load import LoadedModel
from driftscope_probes.trainer.microbatch import MicroBatch

#: Root mean square of the relative error of one rounding to nearest, in units of u, for mantissas
#: spread as 1/x (Benford): sqrt((1 − 1/4) / (6 · ln 2)) = 0.425.
ROUNDING_RMS = 0.425
#: Unit roundoff: half the distance of 1 to the next larger number.
UNIT_ROUNDOFF: Mapping[Dtype, float] = {"bf16": 2.0**-8, "fp16": 2.0**-11, "fp32": 2.0**-24}


@torch.no_grad()
def perturbed_logprobs(
    loaded: LoadedModel, batch: MicroBatch, relative: float, where: Where, seed: int
) -> Tensor:
    """`relative`: root mean square of the noise over the size of each value."""
    generator = torch.Generator(loaded.device).manual_seed(seed)
    with _noise_on(_modules(loaded, where), relative, generator):
        hidden = decode(loaded, batch)[batch.rows.to(loaded.device)]
    logits = F.linear(hidden, loaded.head.weight, loaded.head.bias)
    if where == "stored":
        logits = _noisy(logits, relative, generator)
    targets = batch.targets.to(loaded.device)
    return torch.log_softmax(logits.float(), -1).gather(1, targets[:, None])[:, 0].cpu()


def _modules(loaded: LoadedModel, where: Where) -> list[nn.Module]:
    """The embedding, or all that hand on one tensor: leaves, and layers for their residual sums."""
    if where == "embedding":
        return [loaded.model.get_input_embeddings()]
    leaves = [module for module in loaded.decoder.modules() if not any(module.children())]
    return leaves + list(getattr(loaded.decoder, "layers", ()))


@contextmanager
def _noise_on(
    modules: list[nn.Module], relative: float, generator: torch.Generator
) -> Iterator[None]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return output  # rotary angles and routers keep float32 in coarser models, too
        return _noisy(output, relative, generator)

    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _noisy(values: Tensor, relative: float, generator: torch.Generator) -> Tensor:
    noise = torch.empty_like(values).normal_(0.0, relative, generator=generator)
    return torch.addcmul(values, values, noise)
