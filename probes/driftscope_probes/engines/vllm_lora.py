"""vLLM's own LoRA: an adapter that the engine keeps beside its weights.

In: an Adapter and an engine opened for it. Out: the engine's arguments, and what a request carries.
vLLM holds A and B in the engine's dtype, the scale multiplied into B.
"""

from __future__ import annotations

from typing import Any, get_args

from vllm import LLMEngine
from vllm.config.lora import MaxLoRARanks
from vllm.lora.request import LoRARequest

from driftscope_probes.errors import EngineError, RequestError
from driftscope_probes.models.adapter import Adapter

MERGE = "merge it: --engine-adapter merged-fp32 or merged-bf16."
#: The only adapter of the engine; 0 stands for none.
ADAPTER_ID = 1


def lora_arguments(adapter: Adapter) -> dict[str, Any]:
    """Arguments of the engine. Raises RequestError for a rank above vLLM's largest."""
    needed = max(adapter.ranks)
    room = [rank for rank in get_args(MaxLoRARanks) if rank >= needed]
    if not room:
        raise RequestError(
            f"{adapter.path.name} has rank {needed}, vLLM's LoRA takes up to "
            f"{max(get_args(MaxLoRARanks))}.",
            remedy=MERGE,
        )
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": min(room)}


def load_lora(engine: LLMEngine, adapter: Adapter) -> LoRARequest:
    """Loads the adapter now, so that what vLLM cannot apply is refused before anything is sampled.

    Raises EngineError.
    """
    request = LoRARequest(adapter.path.name, ADAPTER_ID, str(adapter.path))
    try:
        loaded = engine.add_lora(request)
    except (ValueError, RuntimeError, LookupError, TypeError) as error:
        raise EngineError(
            f"vLLM's LoRA does not take {adapter.path.name}: {error}", remedy=MERGE
        ) from error
    if not loaded:
        raise EngineError(f"vLLM's LoRA did not load {adapter.path.name}.", remedy=MERGE)
    return request
