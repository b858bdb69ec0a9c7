"""The trainer's side: its forward in training mode, op by op, on one sequence after another.

In: a loaded model, a mode. Out: runs of it through a tap, with the log-probabilities it gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor

from driftscope_kernels import ops
from driftscope_kernels.compare_ops.parameters import Parameters
from driftscope_kernels.cpu.tiled_log_softmax import tiled_log_softmax
from driftscope_probes.dtypes import TrainerMode
from driftscope_probes.explain.sample import Sample
from driftscope_probes.explain.sides.base import Received, SideName
from driftscope_probes.explain.sides.hf_places import met, uncovered
from driftscope_probes.explain.sides.ran import trainer_ran
from driftscope_probes.explain.sides.trainer_weights import trainer_parameters
from driftscope_probes.explain.sites import Place, Site
from driftscope_probes.explain.taps import Tap
from driftscope_probes.trainer.forward import head_dtype, precision, with_company
from driftscope_probes.trainer.kernels import TrainerKernels, invariant_token_logprobs
from driftscope_probes.trainer.load import LoadedModel, torch_dtype
from driftscope_probes.trainer.settings import TrainerSettings
from driftscope_probes.trainer.token_logprobs import (
    default_chunk_rows,
    log_softmax_,
    product_dtype,
    row_chunks,
    stream_logits,
)


class HfSide:
    name: SideName = "trainer"

    def __init__(self, loaded: LoadedModel, mode: TrainerMode, settings: TrainerSettings) -> None:
        self.loaded, self.mode, self._settings = loaded, mode, settings
        self._kernels = TrainerKernels(settings.kernels, loaded)
        self._last: Sample | None = None

    @property
    def dtype(self) -> torch.dtype:
        return torch_dtype(self.mode.compute)

    def run(self, sample: Sample, tap: Tap | None) -> NDArray[np.float32]:
        values = []
        self._last = sample
        torch.manual_seed(self._settings.seed)
        with torch.no_grad(), self._kernels.in_use():
            for index in range(len(sample.prompts)):
                with precision(self.mode, self.loaded.device):
                    values.append(self._one(sample, index, tap))
        found = np.concatenate(values)
        if tap is not None:
            rows = torch.from_numpy(sample.scored)
            tap.at(Place(None, "logprob"), torch.from_numpy(found)[:, None], rows)
        return found

    def _one(self, sample: Sample, index: int, tap: Tap | None) -> NDArray[np.float32]:
        device = self.loaded.device
        # Without the last token, whose output nobody reads: the engine does not read it either.
        ids = torch.tensor([sample.sequence(index)[:-1]], device=device)
        first, count = int(sample.cu_seqlens[index]), int(sample.lengths[index])
        rows = first + torch.arange(count)

        def meet(place: Place, value: Tensor) -> Tensor:
            assert tap is not None
            return tap.at(place, value, rows)

        def forward() -> Tensor:
            positions = torch.arange(ids.shape[1], device=device)[None]
            output = self.loaded.decoder(input_ids=ids, position_ids=positions, use_cache=False)
            hidden: Tensor = output.last_hidden_state[0]
            return hidden

        if tap is None:
            hidden = forward()
        else:
            with met(self.loaded.decoder, meet):
                hidden = forward()
        scored = torch.arange(len(sample.prompts[index]) - 1, count)
        targets = torch.tensor(sample.responses[index])
        return self._head(hidden, scored, targets, first, tap).cpu().numpy()

    def _head(
        self, hidden: Tensor, scored: Tensor, targets: Tensor, first: int, tap: Tap | None
    ) -> Tensor:
        """As `forward_logprobs`, with the logits met."""
        head, device = self.loaded.head, hidden.device
        targets = targets.to(device)
        if self._settings.kernels == "invariant":
            if tap is not None:
                met_logits = self._invariant_logits(hidden, scored, first, tap)
                return self.logprobs(met_logits).gather(1, targets[:, None])[:, 0]
            return invariant_token_logprobs(
                hidden.index_select(0, scored.to(device)),
                head,
                targets,
                temperature=1.0,
                fp32_head=self.mode.fp32_head,
            )
        rows = with_company(scored, hidden.shape[0])
        dtype = head_dtype(self.mode)
        chosen = hidden.index_select(0, rows.to(device)).to(dtype)
        bias = None if head.bias is None else head.bias.to(dtype)
        # Which rows of a chunk are scored, and the place of each among the targets.
        wanted = torch.isin(rows, scored)
        result = torch.empty(len(scored), dtype=torch.float32, device=device)
        at = 0
        with torch.autocast(device.type, enabled=False):
            chunks = row_chunks(len(rows), default_chunk_rows(dtype))
            for chunk in stream_logits(chosen, head.weight.to(dtype), bias, chunks):
                mine = wanted[chunk.rows]
                count = int(mine.sum())
                if count == 0:
                    continue
                logits = chunk.logits[mine]
                if tap is not None:
                    met_rows = first + rows[chunk.rows][mine]
                    seen = tap.at(Place(None, "logits"), chunk.product[mine], met_rows)
                    logits = seen.float().clone()
                logprobs = log_softmax_(logits, 1.0)
                places = targets[at : at + count, None]
                result[at : at + count] = logprobs.gather(1, places)[:, 0]
                at += count
        return result

    def _invariant_logits(self, hidden: Tensor, scored: Tensor, first: int, tap: Tap) -> Tensor:
        """The fused kernel keeps no logits; the same product by itself has the same bits."""
        dtype = product_dtype(hidden, self.mode.fp32_head)
        chosen = hidden.index_select(0, scored.to(hidden.device)).to(dtype)
        logits = ops.linear(chosen, self.loaded.head.weight.to(dtype))
        return tap.at(Place(None, "logits"), logits, first + scored)

    def logprobs(self, logits: Tensor) -> Tensor:
        if self._settings.kernels == "invariant":
            return tiled_log_softmax(logits)
        # A copy: it is done in place.
        return log_softmax_(logits.float().clone(), 1.0)

    @property
    def received(self) -> Received:
        """It is called with the sample's own tokens, one sequence at a time."""
        assert self._last is not None, "nothing was run yet"
        return Received(self._last.tokens, self._last.positions, self._last.lengths)

    def parameters(self, site: Site) -> Parameters | None:
        return trainer_parameters(self.loaded.model, site)

    def facts(self) -> Mapping[str, Any]:
        model = self.loaded.model
        return {
            "mode": self.mode.name,
            "weights": self.mode.weights,
            "autocast": self.mode.autocast,
            "fp32_head": self.mode.fp32_head,
            "kernels": self._settings.kernels,
            "stock_ops": self._kernels.stock_ops(),
            "attention": model.config._attn_implementation,
            "experts": getattr(model.config, "_experts_implementation", None),
            "architecture": type(model).__name__,
            "train_mode": model.training,
            "device": str(self.loaded.device),
            **trainer_ran(model),
            "transformers": transformers.__version__,
        }

    @property
    def uncovered(self) -> list[str]:
        return uncovered(self.loaded.decoder)
