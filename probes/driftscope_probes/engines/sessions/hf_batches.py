"""Batches through transformers: left-padded generation with a cache, and one forward to score.

transformers decodes the rows of a batch in step; it has no arrival and no prefix cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.hf_generate import HfGenerate
from driftscope_probes.engines.sessions.question import Answer, Batch, Output, Row
from driftscope_probes.engines.sessions.recorded_routes import RouteRecorder, experts_used
from driftscope_probes.errors import RequestError
from driftscope_probes.progress import discard
from driftscope_probes.prompts import PromptBatch


@dataclass(frozen=True, slots=True)
class _SeededTask(RolloutTask):
    """Each request brings its own seed: it must not change with its position in the batch."""

    seeds: tuple[int, ...] = ()

    def seed(self, index: int) -> int:
        return self.seeds[index]


class HfBatches:
    def __init__(self, task: RolloutTask) -> None:
        self._task = task
        self._engine = HfGenerate(task)

    def run(self, batch: Batch) -> Answer:
        assert not any(row.arrival for row in batch.rows)
        if batch.warm or batch.before:
            asked = "a prefix cache" if batch.warm else " and ".join(batch.before)
            raise RequestError(
                f"{asked} was asked of transformers, which has none.",
                remedy="use the engine vllm for it.",
            )
        if batch.routes:
            return Answer(tuple(self._routed(batch)))
        if batch.rows[0].score:
            return Answer(tuple(self._scored(row) for row in batch.rows))
        trace = self._engine.for_task(self._task_of(batch)).generate(discard)
        bounds = trace.cu_seqlens.tolist()
        pieces = [slice(*pair) for pair in zip(bounds[:-1], bounds[1:], strict=True)]
        return Answer(
            tuple(Output(trace.token_ids[piece], trace.logprobs[piece]) for piece in pieces)
        )

    def _task_of(self, batch: Batch) -> _SeededTask:
        seeded = any(row.seed is not None for row in batch.rows)
        sampling = self._task.sampling.model_dump() | {
            "max_tokens": batch.max_tokens,
            **batch.draw.fields(seeded=seeded),
        }
        return _SeededTask(
            model_path=self._task.model_path,
            model_name=self._task.model_name,
            dtype=self._task.dtype,
            prompts=PromptBatch.from_lists([list(row.prompt) for row in batch.rows]),
            sampling=type(self._task.sampling)(**sampling),
            engine=self._task.engine.model_copy(update={"batch_size": len(batch.rows)}),
            seeds=tuple(row.seed or 0 for row in batch.rows),
        )

    def _scored(self, row: Row) -> Output:
        """Log-probabilities of given tokens, all in one forward."""
        tokens = list(row.score)
        logits = self._engine.logits([*row.prompt, *tokens])[len(row.prompt) - 1 : -1]
        logprobs = torch.log_softmax(logits.float(), dim=-1)
        chosen = logprobs.gather(1, torch.tensor(tokens, device=logprobs.device).unsqueeze(1))
        return Output.of(tokens, chosen.squeeze(1).tolist())

    def _routed(self, batch: Batch) -> Iterator[Output]:
        model = self._engine.model
        recorder = RouteRecorder(model, experts_used(model.config))
        try:
            for row in batch.rows:
                scored = self._scored(row)
                routes = recorder.take(len(row.prompt) + len(row.score))
                yield replace(scored, routes=routes)
        finally:
            recorder.remove()

    def used_settings(self) -> dict[str, Any]:
        return self._engine.used_settings()

    def close(self) -> None:
        del self._engine
