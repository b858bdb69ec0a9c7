"""Rollout engine `vllm`: the real vLLM V1 engine inside this process, on CPU or GPU.

In: a RolloutTask. Out: sampled tokens with the log-probabilities vLLM gave them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import vllm
from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.sample.logits_processor import LogitsProcessor

from driftscope_kernels.vllm_plugin import register as register_kernels
from driftscope_kernels.vllm_plugin.coverage import of_model
from driftscope_kernels.vllm_plugin.rounding import KernelChoiceError
from driftscope_probes.dtypes import TORCH_NAMES
from driftscope_probes.engines.base import (
    Response,
    RolloutTask,
    asked_settings,
    end_of_sequence_ids,
    trace_of,
)
from driftscope_probes.engines.settings import kv_cache_bytes
from driftscope_probes.engines.vllm_lora import load_lora, lora_arguments
from driftscope_probes.engines.vllm_seeds import let_seeds_survive_chunks
from driftscope_probes.errors import RequestError
from driftscope_probes.progress import Progress, ProgressSink
from driftscope_probes.trace import Trace


class VllmInProcess:
    def __init__(
        self,
        task: RolloutTask,
        *,
        sleeps: bool = False,
        logits_processors: Sequence[type[LogitsProcessor]] = (),
    ) -> None:
        """`sleeps`: weights in memory that can be let go of; a CPU's are not, and its sleep is a
        pause only.
        """
        _refuse_batch_invariant_on_cpu()
        self._task = task
        self.sleeps = sleeps or current_platform.is_cpu()
        ignore = task.sampling.ignore_eos
        self._stop_ids = [] if ignore else end_of_sequence_ids(task.model_path)
        _register_kernels()
        let_seeds_survive_chunks()
        arguments = _engine_args(task)
        arguments.enable_sleep_mode = sleeps and not current_platform.is_cpu()
        arguments.logits_processors = list(logits_processors) or None
        self._engine = LLMEngine.from_engine_args(arguments)
        #: What every request carries: the adapter, where vLLM's own LoRA serves one.
        self.lora = None if task.adapter is None else load_lora(self._engine, task.adapter)

    @property
    def llm(self) -> LLMEngine:
        """For probes that submit their own requests."""
        return self._engine

    def generate(self, progress: ProgressSink) -> Trace:
        responses = [Response() for _ in range(len(self._task.prompts))]
        for index in range(len(responses)):
            self._engine.add_request(
                str(index),
                {"prompt_token_ids": self._task.prompts.ids(index)},
                _sampling_params(self._task, index, self._stop_ids),
                lora_request=self.lora,
            )
        self._run(responses, progress)
        return trace_of(
            responses,
            self._task,
            engine_version=vllm.__version__,
            settings=self.used_settings(),
        )

    def sampling_params(self, index: int) -> SamplingParams:
        """Of the task's prompt number `index`."""
        return _sampling_params(self._task, index, self._stop_ids)

    def _run(self, responses: list[Response], progress: ProgressSink) -> None:
        expected = len(responses) * self._task.sampling.max_tokens
        sampled = 0
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                delta = output.outputs[0]
                response = responses[int(output.request_id)]
                response.token_ids.extend(delta.token_ids)
                for token, logprobs in zip(delta.token_ids, delta.logprobs, strict=True):
                    response.logprobs.append(logprobs[token].logprob)
                sampled += len(delta.token_ids)
            progress(Progress("sampling", sampled / expected, f"{sampled}/{expected} tokens"))

    def used_settings(self) -> dict[str, Any]:
        config = self._engine.vllm_config
        return asked_settings(self._task) | {
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "logprobs_mode": str(config.model_config.logprobs_mode),
            "batch_size": config.scheduler_config.max_num_seqs,
            "chunked_prefill": config.scheduler_config.enable_chunked_prefill,
            "chunked_prefill_tokens": config.scheduler_config.max_num_batched_tokens,
            "prefix_caching": config.cache_config.enable_prefix_caching,
            "block_tokens": config.cache_config.block_size,
            "kv_cache_dtype": str(config.cache_config.cache_dtype),
            "head_dtype": str(config.model_config.head_dtype),
            "cascade_attention": not config.model_config.disable_cascade_attn,
            "compile": not config.model_config.enforce_eager,
            "compilation_mode": str(config.compilation_config.mode),
            "max_model_len": config.model_config.max_model_len,
            "device": current_platform.device_type,
            "threads": int(os.environ["OMP_NUM_THREADS"]),
            "attention_split_kv": _attention_split_kv(),
            "batch_invariant": os.environ.get("VLLM_BATCH_INVARIANT", "0") == "1",
            "kernel_coverage": self._kernel_coverage(),
        }

    def _kernel_coverage(self) -> dict[str, Any] | None:
        """Which layers our kernels run and which they do not; None if they were not requested."""
        if self._task.engine.kernels == "stock":
            return None
        found: dict[str, Any] = self._engine.apply_model(of_model)[0]
        return found


def _register_kernels() -> None:
    """vLLM finds the plugin by itself where driftscope is installed; this is for a source tree."""
    try:
        register_kernels()
    except KernelChoiceError as error:
        raise RequestError(str(error), remedy="run with --kernels stock.") from error


def _refuse_batch_invariant_on_cpu() -> None:
    if current_platform.is_cpu() and os.environ.get("VLLM_BATCH_INVARIANT", "0") == "1":
        raise RequestError(
            "VLLM_BATCH_INVARIANT=1 is set, but vLLM has no batch-invariant mode on CPUs: "
            "it installs GPU kernels there, which fail at the first call.",
            remedy="unset VLLM_BATCH_INVARIANT.",
        )


def _attention_split_kv() -> bool | None:
    """vLLM's CPU attention only; None elsewhere."""
    if not current_platform.is_cpu():
        return None
    from vllm import envs

    return bool(envs.VLLM_CPU_ATTN_SPLIT_KV)


def _engine_args(task: RolloutTask) -> EngineArgs:
    asked = task.engine
    arguments: dict[str, Any] = {
        "model": str(task.model_path),
        "dtype": TORCH_NAMES[task.dtype],
        "load_format": "safetensors",
        "trust_remote_code": False,
        # The model's own generation_config.json would add unrequested top-p or penalties.
        "generation_config": "vllm",
        "skip_tokenizer_init": True,
        "max_model_len": task.context,
        "max_num_seqs": task.batch_size,
        "logprobs_mode": asked.logprobs_mode,
        "enforce_eager": not asked.compile,
        "seed": task.sampling.seed,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        **_memory(task),
    }
    if asked.prefix_caching is not None:
        arguments["enable_prefix_caching"] = asked.prefix_caching
    if asked.chunked_prefill_tokens is not None:
        arguments["max_num_batched_tokens"] = asked.chunked_prefill_tokens
        arguments["enable_chunked_prefill"] = True
    if asked.kv_cache_dtype is not None:
        arguments["kv_cache_dtype"] = asked.kv_cache_dtype
    if asked.fp32_head is not None:
        # Hidden states and weight are cast; the rest of the model keeps its dtype.
        arguments["hf_overrides"] = {"head_dtype": "float32" if asked.fp32_head else "model"}
    if asked.cascade_attention is not None:
        arguments["disable_cascade_attn"] = not asked.cascade_attention
    if task.adapter is not None:
        arguments |= lora_arguments(task.adapter)
    return EngineArgs(**arguments)


def _memory(task: RolloutTask) -> dict[str, Any]:
    """Explicit on CPU, where vLLM would otherwise reserve 92 % of the machine's memory."""
    if task.engine.kv_cache_gib is not None:
        return {"kv_cache_memory_bytes": int(task.engine.kv_cache_gib * 2**30)}
    if not current_platform.is_cpu():
        return {}
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(task.model_path, trust_remote_code=False)
    need = kv_cache_bytes(
        config.get_text_config(),
        dtype=task.dtype,
        sequences=task.batch_size,
        context=task.context,
    )
    return {"kv_cache_memory_bytes": need}


def _sampling_params(task: RolloutTask, index: int, stop_ids: list[int]) -> SamplingParams:
    sampling = task.sampling
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=task.seed(index),
        ignore_eos=sampling.ignore_eos,
        stop_token_ids=stop_ids,  # without a tokenizer vLLM knows no end-of-sequence token
        logprobs=0,  # the sampled token's alone
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )
