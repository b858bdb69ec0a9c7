"""Options of commands that run an engine and a trainer, and the settings that they come to.

Each command puts the groups between its own; the same option means the same everywhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from pydantic import BaseModel

from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_service.terminal.commands import CHOICES, checked, fields

MODEL: Final = "Catalogue name, local folder or Hub id."
PROMPTS: Final = "A .txt or .jsonl file, or how many of the shipped prompts."
CHAT_TEMPLATE: Final = "Default: where the tokenizer has one."
TRAINER_DTYPES: Final = "bf16, fp16, fp32, autocast-bf16, autocast-fp16, each also with +fp32-head."
#: One value for both sides.
OF_BOTH_SIDES: Final = tuple(
    fields(
        EngineSettings,
        {
            "threads": "Of engine and trainer. Default: every core.",
            "kernels": "Of engine and trainer: stock, or batch-invariant ones: invariant.",
        },
    )
)
OF_SAMPLING: Final = tuple(
    fields(
        SamplingSettings,
        {
            **dict.fromkeys(("max_tokens", "seed", "temperature", "top_p"), ""),
            "top_k": "0: whole vocabulary.",
            "ignore_eos": "",
        },
        panel="Sampling",
    )
)
OF_ENGINE: Final = tuple(
    fields(
        EngineSettings,
        {
            **dict.fromkeys(("kind", "logprobs_mode"), CHOICES),
            **dict.fromkeys(("batch_size", "prefix_caching", "chunked_prefill_tokens"), ""),
            **dict.fromkeys(("compile", "cascade_attention"), ""),
            "kv_cache_dtype": CHOICES,
            "fp32_head": "Logits from a head in float32.",
            "attention_split_kv": "vLLM on CPU.",
            "kv_cache_gib": "",
            **dict.fromkeys(("server_url", "server_model"), "For vllm-server."),
        },
        panel="Engine",
        flags={"kind": "--engine", "compile": "--compile/--enforce-eager"},
    )
)


def sides_of(
    values: Mapping[str, Any], trainer: type[BaseModel], *, command: str
) -> dict[str, BaseModel]:
    """Fields of a request, by name. Raises RequestError."""
    check = partial(checked, command=command)
    return {
        "sampling": check(SamplingSettings, values),
        "engine": check(EngineSettings, values),
        "trainer": check(trainer, values),
    }


def without_default(options: Iterable[inspect.Parameter]) -> list[inspect.Parameter]:
    """None where they are not given: their default depends on another option."""
    return [option.replace(default=None) for option in options]
