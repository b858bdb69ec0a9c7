"""Child process of a floor: the same tokens scored in every way that only rounding tells apart.

    python -m driftscope_probes.floor.measure WORKDIR

request.json: model_path, model_name, prompts and rollout (paths), dtypes, sequences (by dtype: how
many of the rollout's are scored), batch_size, threads, seed. Result: `scores`, a safetensors file
of float32 [tokens] per way, named WAY:DTYPE (`ways.py`); NaN where a token was not scored.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from driftscope_probes.children import child_main
from driftscope_probes.dtypes import Dtype, TrainerMode, parse_mode
from driftscope_probes.floor.ways import ALONE, BATCHED, DECODED, PERTURBATIONS, way_name
from driftscope_probes.progress import Progress, ProgressSink
from driftscope_probes.prompts import PromptBatch, read_prompts
from driftscope_probes.trace import Trace
from driftscope_probes.trace_file import read_trace
from driftscope_probes.trainer.run_trainer import ENVIRONMENT, set_threads
from driftscope_probes.trainer.settings import TrainerSettings

REFERENCE: Dtype = "fp32"
#: A perturbation of FP32's own size would be rounded away as it is put in: it is put in at FP16's
#: size, where the model still answers in proportion, and the answer is scaled down.
SMALLEST_NOISE: Dtype = "fp16"
#: Drawing noise for every stored number takes ten times as long as the forward it goes into.
PERTURBED_SEQUENCES = 4
#: Seconds per token relative to bf16 on a CPU with bf16 instructions, for the progress bar.
COST: Mapping[Dtype, float] = {"bf16": 1.0, "fp32": 2.0, "fp16": 7.0}


@dataclass(frozen=True, slots=True)
class MeasureRequest:
    model_path: str
    model_name: str
    prompts: Path
    rollout: Path
    dtypes: list[Dtype]
    sequences: dict[Dtype, int]
    batch_size: int
    threads: int | None
    seed: int


def run(request: dict[str, Any], workdir: Path, sink: ProgressSink) -> Mapping[str, Any]:
    sink(Progress("importing torch", 0.0))
    os.environ.update(ENVIRONMENT)
    fields = {**request, **{name: Path(request[name]) for name in ("prompts", "rollout")}}
    asked = MeasureRequest(**fields)
    set_threads(asked.threads)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    started = time.perf_counter()
    scores = _Scores(asked, sink).all()
    path = workdir / "scores.safetensors"
    save_file(scores, path)
    return {"scores": str(path), "score_s": time.perf_counter() - started}


class _Scores:
    def __init__(self, asked: MeasureRequest, sink: ProgressSink) -> None:
        self.asked, self.sink = asked, sink
        self.prompts, self.rollout = read_prompts(asked.prompts), read_trace(asked.rollout)
        # The reference first: every other dtype is read against it.
        self.order = list(dict.fromkeys([REFERENCE, *asked.dtypes]))
        self.found: dict[str, NDArray[np.float32]] = {}
        self.total = sum(self._weight(dtype) for dtype in self.order)
        self.done = 0.0

    def all(self) -> dict[str, NDArray[np.float32]]:
        for dtype in self.order:
            self._of(dtype)
            self.done += self._weight(dtype)
            gc.collect()  # one model at a time in memory
        return self.found

    def _weight(self, dtype: Dtype) -> float:
        return COST[dtype] * self.asked.sequences[dtype]

    def _tell(self, stage: str, part: float) -> None:
        fraction = (self.done + part * self._current) / self.total
        self.sink(Progress(stage, min(fraction, 1.0)))

    def _of(self, dtype: Dtype) -> None:
        # Here: huggingface_hub reads the environment as it is imported.
        from driftscope_probes.trainer.load import load_model

        self._current = self._weight(dtype)
        self._tell(f"loading the model in {dtype}", 0.0)
        loaded = load_model(
            self.asked.model_path, self.asked.model_name, dtype, self._settings(micro_batch=1)
        )
        # A floor is rounding alone: dropout is drawn by training mode and would be part of it.
        loaded.model.eval()
        prompts, rollout = first_sequences(self.prompts, self.rollout, self.asked.sequences[dtype])
        mode = parse_mode(dtype)
        self._tell(f"{dtype}: each sequence alone", 0.1)
        self._teacher_forced(way_name(ALONE, dtype), loaded, mode, prompts, rollout, 1)
        if dtype in self.asked.dtypes:
            self._tell(f"{dtype}: in a batch", 0.35)
            batch = self.asked.batch_size
            self._teacher_forced(way_name(BATCHED, dtype), loaded, mode, prompts, rollout, batch)
            self._tell(f"{dtype}: decoding with a KV cache", 0.6)
            self._decoded(way_name(DECODED, dtype), loaded, prompts, rollout)
        if dtype == REFERENCE:
            self._perturbed(loaded, prompts, rollout)

    def _settings(self, micro_batch: int) -> TrainerSettings:
        return TrainerSettings(micro_batch=micro_batch, headroom=False, seed=self.asked.seed)

    def _teacher_forced(
        self,
        name: str,
        loaded: Any,
        mode: TrainerMode,
        prompts: PromptBatch,
        rollout: Trace,
        micro_batch: int,
    ) -> None:
        from driftscope_probes.trainer.forward import score_rollout

        scored = score_rollout(loaded, mode, prompts, rollout, self._settings(micro_batch))
        self._put(name, slice(0, rollout.token_ids.size), scored.trace.logprobs)

    def _decoded(self, name: str, loaded: Any, prompts: PromptBatch, rollout: Trace) -> None:
        from driftscope_probes.floor.decoding import decoded_logprobs

        for tokens, logprobs in decoded_logprobs(loaded, prompts, rollout, self.asked.batch_size):
            self._put(name, tokens, logprobs)

    def _perturbed(self, loaded: Any, prompts: PromptBatch, rollout: Trace) -> None:
        from driftscope_probes.floor.perturbation import (
            ROUNDING_RMS,
            UNIT_ROUNDOFF,
            perturbed_logprobs,
        )
        from driftscope_probes.trainer.microbatch import micro_batches

        reference = self.found[way_name(ALONE, REFERENCE)]
        prompts, rollout = first_sequences(prompts, rollout, PERTURBED_SEQUENCES)
        batches = list(micro_batches(prompts, rollout, self._settings(micro_batch=1)))
        by_size: dict[Dtype, list[Dtype]] = {}
        for dtype in self.asked.dtypes:
            tiny = UNIT_ROUNDOFF[dtype] < UNIT_ROUNDOFF[SMALLEST_NOISE]
            by_size.setdefault(SMALLEST_NOISE if tiny else dtype, []).append(dtype)
        for where in PERTURBATIONS:
            for size, dtypes in by_size.items():
                self._tell(f"perturbing the fp32 model as {' and '.join(dtypes)} would", 0.85)
                for batch in batches:
                    moved = perturbed_logprobs(
                        loaded,
                        batch,
                        ROUNDING_RMS * UNIT_ROUNDOFF[size],
                        where,
                        seed=self.asked.seed + batch.tokens.start,
                    ).numpy()
                    answer = moved - reference[batch.tokens]
                    for dtype in dtypes:
                        scale = np.float32(UNIT_ROUNDOFF[dtype] / UNIT_ROUNDOFF[size])
                        scaled = reference[batch.tokens] + answer * scale
                        self._put(way_name(where, dtype), batch.tokens, scaled)

    def _put(self, name: str, tokens: slice, logprobs: NDArray[np.float32]) -> None:
        empty = np.full(self.rollout.token_ids.size, np.nan, np.float32)
        self.found.setdefault(name, empty)[tokens] = logprobs


def first_sequences(prompts: PromptBatch, rollout: Trace, count: int) -> tuple[PromptBatch, Trace]:
    """The first `count` prompts and their responses."""
    count = min(count, rollout.sequences)
    kept = PromptBatch.from_lists([prompts.ids(index) for index in range(count)])
    tokens = slice(0, int(rollout.cu_seqlens[count]))
    return kept, Trace(
        token_ids=rollout.token_ids[tokens].copy(),
        logprobs=rollout.logprobs[tokens].copy(),
        cu_seqlens=rollout.cu_seqlens[: count + 1].copy(),
        mask=rollout.mask[tokens].copy(),
        meta=rollout.meta,
    )


if __name__ == "__main__":
    child_main(run)
