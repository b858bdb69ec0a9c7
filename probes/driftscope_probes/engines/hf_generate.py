"""Rollout engine `hf`: transformers `generate` with a KV cache, for machines without vLLM.

Each request samples from a generator of its own by the Gumbel-max rule (Maddison et al. 2014):
argmax(logits + Gumbel noise) is a draw from softmax(logits), so that a request's draw does not
depend on which others share its batch.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

from driftscope_probes.dtypes import TORCH_NAMES
from driftscope_probes.engines.base import (
    Response,
    RolloutTask,
    asked_settings,
    end_of_sequence_ids,
    trace_of,
)
from driftscope_probes.errors import RequestError
from driftscope_probes.progress import Progress, ProgressSink
from driftscope_probes.trace import Trace

_VLLM_ONLY = (
    *("prefix_caching", "chunked_prefill_tokens", "kv_cache_dtype", "fp32_head"),
    *("cascade_attention", "attention_split_kv"),
)


class HfGenerate:
    def __init__(self, task: RolloutTask) -> None:
        for name in _VLLM_ONLY:
            if getattr(task.engine, name) is not None:
                raise RequestError(
                    f"{name} was set, but the hf engine has no such setting.",
                    remedy="leave it out, or use --engine vllm.",
                )
        if task.engine.compile:
            raise RequestError(
                "compile was asked for, but the hf engine runs eagerly only.",
                remedy="leave it out, or use --engine vllm.",
            )
        self._task = task
        self._stop_ids = _stop_ids(task)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = AutoModelForCausalLM.from_pretrained(
            task.model_path,
            dtype=getattr(torch, TORCH_NAMES[task.dtype]),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        ).to(self._device)
        self._model.eval()

    @property
    def model(self) -> Any:
        """For probes that look into it."""
        return self._model

    def for_task(self, task: RolloutTask) -> HfGenerate:
        """The same loaded model for other prompts; `task` must name the same model and dtype."""
        other = copy(self)
        other._task = task
        other._stop_ids = _stop_ids(task)
        return other

    def logits(self, token_ids: list[int]) -> torch.Tensor:
        """Logits at every position of one sequence in one forward, [tokens, vocabulary]."""
        with torch.inference_mode():
            ids = torch.tensor([token_ids], device=self._device)
            logits: torch.Tensor = self._model(input_ids=ids, use_cache=False).logits[0]
        return logits

    def generate(self, progress: ProgressSink) -> Trace:
        count = len(self._task.prompts)
        responses = [Response() for _ in range(count)]
        for start in range(0, count, self._task.batch_size):
            batch = range(start, min(count, start + self._task.batch_size))
            progress(Progress("sampling", start / count, f"{start}/{count} prompts"))
            self._generate_batch(batch, responses)
        return trace_of(
            responses,
            self._task,
            engine_version=transformers.__version__,
            settings=self.used_settings(),
        )

    def _generate_batch(self, batch: range, responses: list[Response]) -> None:
        ids, attention = self._left_padded(batch)
        sampler = _SeededSampler(self._task, batch, self._device)
        sampling = self._task.sampling
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=ids,
                attention_mask=attention,
                max_new_tokens=sampling.max_tokens,
                do_sample=False,  # the sampler below has drawn; greedy takes its choice
                num_beams=1,
                logits_processor=LogitsProcessorList([sampler]),
                eos_token_id=self._stop_ids,
                pad_token_id=0,
                top_p=None,
                top_k=None,
                temperature=None,
                use_cache=True,
            )
        sampled = output[:, ids.shape[1] :].cpu()
        logprobs = torch.stack(sampler.logprobs, dim=1).cpu()  # [batch, steps]
        for row, index in enumerate(batch):
            length = self._length(sampled[row])
            responses[index].token_ids.extend(sampled[row, :length].tolist())
            responses[index].logprobs.extend(logprobs[row, :length].tolist())

    def _left_padded(self, batch: range) -> tuple[torch.Tensor, torch.Tensor]:
        prompts = [self._task.prompts.ids(index) for index in batch]
        width = max(map(len, prompts))
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        attention = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            attention[row, width - len(prompt) :] = 1
        return ids.to(self._device), attention.to(self._device)

    def _length(self, row: torch.Tensor) -> int:
        """Tokens up to and including the first end-of-sequence token."""
        ends = torch.isin(row, torch.tensor(self._stop_ids)).nonzero()
        return int(ends[0]) + 1 if ends.numel() else int(row.numel())

    def used_settings(self) -> dict[str, Any]:
        return asked_settings(self._task) | {
            "device": self._device,
            "threads": torch.get_num_threads(),
            "attention": self._model.config._attn_implementation,
            "torch": torch.__version__,
        }


def _stop_ids(task: RolloutTask) -> list[int]:
    return [] if task.sampling.ignore_eos else end_of_sequence_ids(task.model_path)


class _SeededSampler(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Draws each row's token with that row's generator, records its log-probability."""

    def __init__(self, task: RolloutTask, batch: range, device: str) -> None:
        self._task = task
        self._generators = [torch.Generator().manual_seed(task.seed(index)) for index in batch]
        self._device = device
        sampling = task.sampling
        self._warpers: list[Any] = []
        if sampling.top_k:
            self._warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1.0:
            self._warpers.append(TopPLogitsWarper(sampling.top_p))
        self.logprobs: list[torch.Tensor] = []  # one [batch] per step, nats

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        raw = scores.float()
        processed = self._process(input_ids, raw)
        chosen = (processed + self._noise(raw.shape[-1])).argmax(dim=-1, keepdim=True)
        reported = raw if self._task.engine.logprobs_mode == "raw_logprobs" else processed
        self.logprobs.append(torch.log_softmax(reported, dim=-1).gather(1, chosen).squeeze(1))
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)

    def _process(self, input_ids: torch.Tensor, raw: torch.Tensor) -> torch.Tensor:
        if self._task.sampling.temperature == 0.0:
            return raw
        processed = raw / self._task.sampling.temperature
        for warper in self._warpers:
            processed = warper(input_ids, processed)
        return processed

    def _noise(self, vocabulary: int) -> torch.Tensor:
        """Standard Gumbel noise, row by row; none when greedy."""
        rows = len(self._generators)
        if self._task.sampling.temperature == 0.0:
            return torch.zeros(rows, vocabulary, device=self._device)
        exponential = torch.stack(
            [
                torch.empty(vocabulary).exponential_(generator=generator)
                for generator in self._generators
            ]
        )
        return -exponential.log().to(self._device)
