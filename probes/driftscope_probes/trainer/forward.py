"""Training-mode forward over exactly the rollout's tokens. In: model, mode, prompts, rollout Trace.
Out: trainer Trace on the same tokens and, if requested, the gradient of a policy loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor

from driftscope_probes.dtypes import TrainerMode
from driftscope_probes.errors import TrainerError
from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trace import Trace, TraceMeta
from driftscope_probes.trainer.gradient import GradientMeasurement, GradientReport
from driftscope_probes.trainer.kernels import TrainerKernels, invariant_token_logprobs
from driftscope_probes.trainer.load import LoadedModel, torch_dtype
from driftscope_probes.trainer.microbatch import MicroBatch, micro_batches
from driftscope_probes.trainer.settings import Kernels, TrainerSettings, trainer_temperature
from driftscope_probes.trainer.token_logprobs import (
    INVARIANT_ROWS,
    default_chunk_rows,
    token_logprobs,
)

OnTokens = Callable[[int], None]
"""Told after each micro-batch how many input tokens, padding aside, it has read."""


@dataclass(frozen=True, slots=True)
class Scored:
    trace: Trace
    gradient: GradientReport | None
    backward_s: float  # part of the time that the backward passes took


@dataclass(slots=True)
class KnownScores:
    """Log-probabilities of micro-batches already seen in one mode: engines of different dtypes
    often sample the very same response, whose forward pass then gives the very same bits."""

    values: dict[bytes, NDArray[np.float32]] = field(default_factory=dict)


def score_rollout(
    loaded: LoadedModel,
    mode: TrainerMode,
    prompts: PromptBatch,
    rollout: Trace,
    settings: TrainerSettings,
    *,
    known: KnownScores | None = None,
    on_tokens: OnTokens = lambda _: None,
) -> Scored:
    """Score every response token once. `known` belongs to one model and one mode.

    Raises TrainerError when prompts, rollout and model do not fit together.
    """
    assert loaded.weights == mode.weights, (loaded.weights, mode)
    _check_vocabulary(loaded, rollout)
    run = _Run(loaded, mode, rollout, settings, known or KnownScores())
    torch.manual_seed(settings.seed)
    with torch.enable_grad(), run.kernels.in_use(), run.weight_casts_kept():
        for batch in micro_batches(prompts, rollout, settings):
            run.score(batch)
            on_tokens(_tokens_read(batch))
    return run.finish()


class _Run:
    """State of one pass over one rollout."""

    def __init__(
        self,
        loaded: LoadedModel,
        mode: TrainerMode,
        rollout: Trace,
        settings: TrainerSettings,
        known: KnownScores,
    ) -> None:
        self.loaded, self.mode, self.rollout, self.settings = loaded, mode, rollout, settings
        self.temperature = trainer_temperature(rollout.meta)
        self.known = known
        self.kernels = TrainerKernels(settings.kernels, loaded)
        self.gradient = (
            GradientMeasurement(loaded.model, mode, rollout, settings.seed)
            if settings.backward
            else None
        )
        self.logprobs = np.empty(rollout.token_ids.size, np.float32)
        self.random = False  # whether any forward drew random numbers
        self.reused = 0  # micro-batches
        self.backward_s = 0.0

    def weight_casts_kept(self) -> AbstractContextManager[object]:
        """Autocast casts each weight once per outermost region: one region for all micro-batches.

        Not with a backward pass, which has to leave the region and frees the casts' graph.
        """
        return nullcontext() if self.gradient else precision(self.mode, self.loaded.device)

    def score(self, batch: MicroBatch) -> None:
        key = batch.key + str(self.temperature).encode()
        if key in self.known.values and not self.random and self.gradient is None:
            self.logprobs[batch.tokens] = self.known.values[key]
            self.reused += 1
            return
        state = _random_state(self.loaded.device)
        logprobs = forward_logprobs(
            self.loaded, self.mode, batch, self.temperature, self.settings.kernels
        )
        self.random |= not torch.equal(state, _random_state(self.loaded.device))
        assert logprobs.requires_grad, "the forward ran without gradients"
        if self.gradient is not None:
            started = time.perf_counter()
            self.gradient.add(logprobs, batch.tokens)
            self.backward_s += time.perf_counter() - started
        values = logprobs.detach().cpu().numpy()
        self.logprobs[batch.tokens] = values
        if not self.random:
            self.known.values[key] = values

    def finish(self) -> Scored:
        trace = Trace(
            token_ids=self.rollout.token_ids,
            logprobs=self.logprobs,
            cu_seqlens=self.rollout.cu_seqlens,
            mask=self.rollout.mask,
            meta=TraceMeta(
                side="trainer",
                model=self.loaded.name,
                dtype=self.mode.name,
                engine="trainer",
                engine_version=f"transformers {transformers.__version__}",
                settings=self._recorded(),
            ),
        )
        report = None if self.gradient is None else self.gradient.report()
        return Scored(trace, report, self.backward_s)

    def _recorded(self) -> dict[str, Any]:
        return {
            **self.settings.model_dump(exclude={"headroom", "headroom_sequences"}),
            "threads": torch.get_num_threads(),
            "mode": self.mode.name,
            "weights": self.mode.weights,
            "autocast": self.mode.autocast,
            "fp32_head": self.mode.fp32_head,
            "temperature": self.temperature,
            "truncation_applied": False,  # top_p and top_k of the rollout are not repeated
            **self._head_recorded(),
            "train_mode": self.loaded.model.training,
            "gradients": True,
            "random_numbers_drawn": self.random,
            "reused_micro_batches": self.reused,
            "architecture": type(self.loaded.model).__name__,
            "device": str(self.loaded.device),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def _head_recorded(self) -> dict[str, Any]:
        if self.settings.kernels == "stock":
            return {"head_chunk_rows": default_chunk_rows(head_dtype(self.mode))}
        return {"stock_ops": self.kernels.stock_ops()}


def forward_logprobs(
    loaded: LoadedModel,
    mode: TrainerMode,
    batch: MicroBatch,
    temperature: float,
    kernels: Kernels = "stock",
) -> Tensor:
    """float32 [tokens scored], in the graph; "invariant" kernels: inside invariant mode."""
    device = loaded.device
    with precision(mode, device):
        hidden = decode(loaded, batch)
        if kernels == "invariant":
            return invariant_token_logprobs(
                hidden.index_select(0, batch.rows),
                loaded.head,
                batch.targets,
                temperature=temperature,
                fp32_head=mode.fp32_head,
            )
        rows = with_company(batch.rows, hidden.shape[0])
        scored = torch.searchsorted(rows, batch.rows)
        targets = torch.zeros_like(rows)
        targets[scored] = batch.targets
        logprobs = token_logprobs(
            hidden.index_select(0, rows.to(device)),
            loaded.head.weight,
            targets.to(device),
            bias=loaded.head.bias,
            temperature=temperature,
            fp32_head=mode.fp32_head,
        )
        return logprobs.index_select(0, scored.to(device))


def decode(loaded: LoadedModel, batch: MicroBatch) -> Tensor:
    """Hidden states before the head, [batch * length, hidden size], in the graph."""
    device = loaded.device
    output = loaded.decoder(
        input_ids=batch.input_ids.to(device),
        attention_mask=None if batch.attention_mask is None else batch.attention_mask.to(device),
        position_ids=batch.position_ids.to(device),
        use_cache=False,
    )
    hidden: Tensor = output.last_hidden_state
    return hidden.flatten(0, 1)


def precision(mode: TrainerMode, device: torch.device) -> AbstractContextManager[object]:
    if mode.autocast is None:
        return nullcontext()
    return torch.autocast(device.type, dtype=torch_dtype(mode.autocast))


def head_dtype(mode: TrainerMode) -> torch.dtype:
    return torch.float32 if mode.fp32_head else torch_dtype(mode.compute)


def with_company(rows: Tensor, available: int) -> Tensor:
    """`rows` (rising) and, if they are few, further positions of the same pass among them.

    A product over few rows is summed in another order; padded this way a short response gets the
    bits that it has in the model's own logits over the whole sequence.
    """
    missing = min(INVARIANT_ROWS, available) - rows.numel()
    if missing <= 0:
        return rows
    others = torch.ones(available, dtype=torch.bool)
    others[rows] = False
    return torch.cat([rows, others.nonzero()[:missing, 0]]).sort().values


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _tokens_read(batch: MicroBatch) -> int:
    mask = batch.attention_mask
    return batch.input_ids.numel() if mask is None else int(mask.sum())


def _check_vocabulary(loaded: LoadedModel, rollout: Trace) -> None:
    largest = int(rollout.token_ids.max(initial=0))
    if largest >= loaded.vocabulary:
        raise TrainerError(
            f"the rollout holds token {largest}, the trainer's vocabulary ends at "
            f"{loaded.vocabulary - 1}.",
            remedy="use the same model on both sides.",
        )
