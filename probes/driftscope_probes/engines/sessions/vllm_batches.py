"""Batches through the real vLLM engine of this process, requests added while others decode.

Every batch starts on an empty prefix cache, unless it asks for a warm one. Sleeping and reloading
come first, if the batch asks for them.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

from vllm import SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind

from driftscope_probes.engines.base import RolloutTask, end_of_sequence_ids
from driftscope_probes.engines.sessions.question import Answer, Batch, Event, Output, Row
from driftscope_probes.engines.sessions.recorded_routes import RouteRecorder, experts_used
from driftscope_probes.engines.vllm_in_process import VllmInProcess
from driftscope_probes.errors import RequestError

#: Weights go to the host's memory and the cache is dropped, as between rollout and training.
SLEEP_LEVEL = 1


class VllmBatches:
    def __init__(self, task: RolloutTask) -> None:
        if task.engine.attention_split_kv is not None and not current_platform.is_cpu():
            raise RequestError(
                "attention_split_kv is a setting of vLLM's CPU attention; this engine has none.",
                remedy="leave it and the axis kv_split out.",
            )
        self._task = task
        self._engine = VllmInProcess(task)
        self._stop_ids: list[int] | None = None

    def run(self, batch: Batch) -> Answer:
        for event in batch.before:
            self._undergo(event)
        self._engine.llm.reset_prefix_cache()
        if batch.warm:
            self._generation(batch).finish()
        if batch.routes:
            return self._routed(batch)
        if batch.rows[0].score:
            return self._scored(batch)
        return self._generation(batch).finish()

    def _undergo(self, event: Event) -> None:
        if event == "reload":
            # vLLM drops neither the prefix cache by itself, nor lm_head's packed copy on CPU.
            folder = {"weights_path": str(self._task.model_path)}
            self._engine.llm.collective_rpc("reload_weights", kwargs=folder)
            return
        if not self._engine.sleeps:
            self.close()
            self._engine = VllmInProcess(self._task, sleeps=True)
        self._engine.llm.sleep(SLEEP_LEVEL)
        # Without it the scheduler stays paused, and the next batch would wait forever.
        self._engine.llm.wake_up()

    def _generation(self, batch: Batch) -> _Generation:
        """Without a tokenizer vLLM knows no end-of-sequence token."""
        if not batch.draw.ignore_eos and self._stop_ids is None:
            self._stop_ids = end_of_sequence_ids(self._task.model_path)
        stop = [] if batch.draw.ignore_eos else self._stop_ids or []
        return _Generation(self._engine, batch, stop)

    def _scored(self, batch: Batch) -> Answer:
        """Log-probabilities of given tokens, all in one prefill."""
        assert all(row.score for row in batch.rows)
        llm = self._engine.llm
        asked = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        for index, row in enumerate(batch.rows):
            prompt = {"prompt_token_ids": [*row.prompt, *row.score]}
            llm.add_request(str(index), prompt, asked, lora_request=self._engine.lora)
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

    def _routed(self, batch: Batch) -> Answer:
        """Row by row: the routers see all rows of a step as one."""
        llm = self._engine.llm
        used = experts_used(llm.vllm_config.model_config.hf_text_config)
        (recorder,) = llm.apply_model(lambda model: RouteRecorder(model, used))
        outputs = []
        try:
            for row in batch.rows:
                (output,) = self._scored(replace(batch, rows=(row,))).outputs
                tokens = len(row.prompt) + len(row.score)
                outputs.append(replace(output, routes=recorder.take(tokens)))
        finally:
            recorder.remove()
        return Answer(tuple(outputs))

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

    def __init__(self, engine: VllmInProcess, batch: Batch, stop_ids: list[int]) -> None:
        self._llm, self._lora = engine.llm, engine.lora
        self._batch = batch
        self._stop_ids = stop_ids
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
            self._llm.add_request(str(index), prompt, self._sampling(row), lora_request=self._lora)

    def _sampling(self, row: Row) -> SamplingParams:
        return SamplingParams(
            max_tokens=self._batch.max_tokens,
            seed=row.seed,
            stop_token_ids=self._stop_ids,
            logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            **self._batch.draw.fields(seeded=row.seed is not None),
        )

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
