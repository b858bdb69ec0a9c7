"""Batches through the real vLLM engine of this process, requests added while others decode.

Every batch starts on an empty prefix cache, unless it asks for a warm one.
"""

from __future__ import annotations

import gc
from typing import Any

from vllm import LLMEngine, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind

from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.sessions.question import Answer, Batch, Output, Row
from driftscope_probes.engines.vllm_in_process import VllmInProcess
from driftscope_probes.errors import RequestError


class VllmBatches:
    def __init__(self, task: RolloutTask) -> None:
        if task.engine.attention_split_kv is not None and not current_platform.is_cpu():
            raise RequestError(
                "attention_split_kv is a setting of vLLM's CPU attention; this engine has none.",
                remedy="leave it and the axis kv_split out.",
            )
        self._engine = VllmInProcess(task)

    def run(self, batch: Batch) -> Answer:
        self._engine.llm.reset_prefix_cache()
        if batch.warm:
            _Generation(self._engine.llm, batch).finish()
        if batch.rows[0].score:
            return self._scored(batch)
        return _Generation(self._engine.llm, batch).finish()

    def _scored(self, batch: Batch) -> Answer:
        """Log-probabilities of given tokens, all in one prefill."""
        assert all(row.score for row in batch.rows)
        llm = self._engine.llm
        asked = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        for index, row in enumerate(batch.rows):
            llm.add_request(str(index), {"prompt_token_ids": [*row.prompt, *row.score]}, asked)
        outputs: dict[int, Output] = {}
        while llm.has_unfinished_requests():
            for done in llm.step():
                if done.finished:
                    row = batch.rows[int(done.request_id)]
                    steps = done.prompt_logprobs[len(row.prompt) :]
                    logprobs = [
                        step[token].logprob for token, step in zip(row.score, steps, strict=True)
                    ]
                    outputs[int(done.request_id)] = Output.of(list(row.score), logprobs)
        return Answer(tuple(outputs[index] for index in range(len(batch.rows))))

    def used_settings(self) -> dict[str, Any]:
        return self._engine.used_settings()

    def close(self) -> None:
        self._engine.llm.engine_core.shutdown()
        del self._engine
        gc.collect()
        cleanup_dist_env_and_memory()
        gc.collect()


class _Generation:
    """One batch in progress in the engine."""

    def __init__(self, llm: LLMEngine, batch: Batch) -> None:
        self._llm = llm
        self._batch = batch
        self._tokens: list[list[int]] = [[] for _ in batch.rows]
        self._logprobs: list[list[float]] = [[] for _ in batch.rows]
        # Submitted in order, also within one step.
        self._waiting = sorted(range(len(batch.rows)), key=lambda index: batch.rows[index].arrival)
        self._preemptions: dict[str, int] = {}
        self._cached = 0

    def finish(self) -> Answer:
        step = 0
        while self._waiting or self._llm.has_unfinished_requests():
            if not self._llm.has_unfinished_requests():
                # No row is decoding: the next one need not wait for steps that never come.
                step = max(step, self._batch.rows[self._waiting[0]].arrival)
            self._add_arrived(step)
            self._step()
            step += 1
        sampled = zip(self._tokens, self._logprobs, strict=True)
        outputs = tuple(Output.of(tokens, logprobs) for tokens, logprobs in sampled)
        return Answer(outputs, sum(self._preemptions.values()), self._cached)

    def _add_arrived(self, step: int) -> None:
        while self._waiting and self._batch.rows[self._waiting[0]].arrival <= step:
            index = self._waiting.pop(0)
            row = self._batch.rows[index]
            prompt = {"prompt_token_ids": list(row.prompt)}
            self._llm.add_request(str(index), prompt, _sampling(row, self._batch.max_tokens))

    def _step(self) -> None:
        for output in self._llm.step():
            index, delta = int(output.request_id), output.outputs[0]
            self._tokens[index].extend(delta.token_ids)
            for token, logprobs in zip(delta.token_ids, delta.logprobs, strict=True):
                self._logprobs[index].append(logprobs[token].logprob)
            if output.finished:
                self._cached += output.num_cached_tokens or 0
        requests = self._llm.engine_core.engine_core.scheduler.requests
        for name, request in requests.items():
            self._preemptions[name] = request.num_preemptions


def _sampling(row: Row, max_tokens: int) -> SamplingParams:
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=0.0 if row.seed is None else 1.0,
        # None where nothing is drawn: vLLM 0.32 on CPU fails on a seed in a chunked prefill.
        seed=row.seed,
        ignore_eos=True,
        logprobs=0,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )
