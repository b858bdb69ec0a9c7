"""What of an engine's configuration our kernels cannot run, refused before a model is loaded.

In: VllmConfig. Out: KernelChoiceError, or nothing.
"""

from __future__ import annotations

from typing import Any

from driftscope_kernels.vllm_choice import INVARIANT, VARIABLE, KernelChoiceError
from driftscope_kernels.vllm_plugin import patches


def route() -> None:
    from vllm.platforms import current_platform

    platform = type(current_platform)
    original = platform.check_and_update_config

    def check_and_update_config(cls: type, vllm_config: Any) -> None:
        original(vllm_config)
        check(vllm_config)

    patches.replace(platform, "check_and_update_config", classmethod(check_and_update_config))


def check(vllm_config: Any) -> None:
    """Raises KernelChoiceError with everything that is in the way."""
    from vllm.config import CompilationMode

    faults = []
    if vllm_config.compilation_config.mode not in (None, CompilationMode.NONE):
        faults.append("compiled mode: pass enforce_eager=True")
    if str(vllm_config.cache_config.cache_dtype) not in ("auto", "bfloat16", "float16", "float32"):
        faults.append(
            f"kv_cache_dtype={vllm_config.cache_config.cache_dtype}: keys and values are kept in "
            "the dtype of the model; leave it at auto"
        )
    if vllm_config.parallel_config.world_size > 1:
        faults.append(
            f"{vllm_config.parallel_config.world_size} ranks: sums over ranks are vLLM's own; use "
            "tensor_parallel_size=1 and pipeline_parallel_size=1"
        )
    if vllm_config.lora_config is not None:
        faults.append("LoRA: its products are vLLM's own; merge the adapter into the weights")
    if vllm_config.speculative_config is not None:
        faults.append("speculative decoding: not tested; leave it off")
    if faults:
        raise KernelChoiceError(f"{VARIABLE}={INVARIANT} does not run " + "; ".join(faults))
