"""The trainer's kernels: torch's own, or driftscope's batch-invariant ones, forward and backward.

In: the setting and a loaded model. Out: the block to compute in, what of it was not covered, and
the log-probabilities of the invariant head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from driftscope_kernels import ops
from driftscope_kernels.invariant_mode import InvariantMode, InvariantModeError, invariant_mode
from driftscope_kernels.options import TRANSFORMERS
from driftscope_probes.errors import TrainerError
from driftscope_probes.trainer.load import LanguageModelHead, LoadedModel
from driftscope_probes.trainer.settings import Kernels
from driftscope_probes.trainer.token_logprobs import product_dtype


class TrainerKernels:
    """One choice for one pass over a rollout."""

    def __init__(self, kernels: Kernels, loaded: LoadedModel) -> None:
        self._mode: InvariantMode | None = None
        self._kernels = kernels
        if kernels == "invariant":
            _check(loaded)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Raises TrainerError if the model's training inherently depends on the batch."""
        if self._kernels == "stock":
            yield
            return
        try:
            with invariant_mode() as self._mode:
                yield
        except InvariantModeError as error:
            raise TrainerError(
                f"invariant kernels do not run {error}",
                remedy="score with the trainer's kernels set to stock, or with such a model.",
            ) from error

    def stock_ops(self) -> dict[str, int]:
        """Calls of torch's own kernels whose invariance is unknown."""
        return {} if self._mode is None else dict(self._mode.coverage().stock)


def invariant_token_logprobs(
    hidden: Tensor,
    head: LanguageModelHead,
    targets: Tensor,
    *,
    temperature: float,
    fp32_head: bool,
) -> Tensor:
    """As `token_logprobs`, by the kernel of `driftscope_kernels.ops.token_logprob`."""
    dtype = product_dtype(hidden, fp32_head)
    # `to` returns the weight itself where nothing is to be cast, main_grad and all.
    result = ops.token_logprob(
        hidden.to(dtype),
        head.weight.to(dtype),
        targets,
        temperature=temperature,
        options=TRANSFORMERS.logprob,
    )
    return result.logprob


def _check(loaded: LoadedModel) -> None:
    if loaded.device.type != "cpu":
        raise TrainerError(
            f"the invariant kernels run on the CPU, the model is on {loaded.device}.",
            remedy="set the trainer's kernels to stock, or hide the GPU (CUDA_VISIBLE_DEVICES=).",
        )
    if loaded.head.bias is not None:
        raise TrainerError(
            f"the head of {loaded.name} has a bias, which the invariant kernel does not add.",
            remedy="set the trainer's kernels to stock for this model.",
        )
