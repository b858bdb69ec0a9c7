"""TRL: arguments of its online trainers as YAML or JSON, as a command line, as Python.

In: a Document. Out: Settings. Keys are those of GRPOConfig, RLOOConfig, AsyncGRPOConfig and
ModelConfig of TRL 1.16, and of the releases before it. Python is parsed, never run: only literals
in a call of such a configuration are read.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from driftscope_probes.lint.base import Setting, Settings
from driftscope_probes.lint.readers.base import Document, Key, leaves, settings_of
from driftscope_probes.lint.readers.script import read_script
from driftscope_probes.lint.readers.trainer_values import (
    correction,
    named,
    rank,
    targets_head,
)
from driftscope_probes.lint.readers.values import dtype, number, switch, word

#: Keys that no other tool's flat configuration has: two of them make a file TRL's.
_ITS_OWN: Final = frozenset(
    {
        *("use_vllm", "vllm_mode", "vllm_server_host", "vllm_server_base_url"),
        *("vllm_gpu_memory_utilization", "vllm_importance_sampling_correction"),
        *("vllm_importance_sampling_mode", "vllm_enable_sleep_mode", "vllm_model_impl"),
        *("vllm_tensor_parallel_size", "vllm_device", "num_generations", "steps_per_generation"),
        *("max_completion_length", "cast_lm_head_to_fp32", "mask_truncated_completions"),
        *("scale_rewards", "reward_funcs", "log_completions", "max_staleness"),
    }
)
_CONFIGS: Final = frozenset({"GRPOConfig", "RLOOConfig", "AsyncGRPOConfig", "OnlineDPOConfig"})
_ADAPTERS: Final = frozenset({"LoraConfig"})
#: Characters; published training scripts stay below 80,000. Parsing takes a second per 200,000.
_LONGEST_PYTHON: Final = 2**17
#: Programs of a command line whose flags are TRL's: `accelerate launch … grpo.py`, `trl grpo`.
_RUNS: Final = ("accelerate", "trl", "torchrun", "python", "python3", "deepspeed")


def _level(value: Any) -> str | None:
    said = word(value)
    return said if said in ("token", "sequence") else None


def _corrects_how(value: Any) -> str | None:
    """token_truncate, token_mask, sequence_truncate, sequence_mask."""
    said = word(value)
    return None if said is None else said.partition("_")[0]


_KEYS: Final[Mapping[str, Key]] = {
    "use_vllm": Key("engine.name", named("vllm")),
    "vllm_importance_sampling_mode": Key("trainer.correction", _corrects_how),
    "vllm_enable_sleep_mode": Key("engine.sleep_mode", switch),
    "vllm_tensor_parallel_size": Key("engine.tensor_parallel", number),
    "vllm_model_impl": Key("engine.model_implementation", word),
    "temperature": Key("sampling.temperature", number),
    "top_p": Key("sampling.top_p", number),
    "top_k": Key("sampling.top_k", number),
    "min_p": Key("sampling.min_p", number),
    "repetition_penalty": Key("sampling.repetition_penalty", number),
    "generation_kwargs.top_p": Key("sampling.top_p", number),
    "generation_kwargs.top_k": Key("sampling.top_k", number),
    "generation_kwargs.min_p": Key("sampling.min_p", number),
    "generation_kwargs.repetition_penalty": Key("sampling.repetition_penalty", number),
    "epsilon": Key("trainer.clip_low", number),
    "importance_sampling_level": Key("trainer.ratio_of", _level),
    "bf16": Key("trainer.dtype", named("bf16")),
    "fp16": Key("trainer.dtype", named("fp16")),
    "torch_dtype": Key("trainer.master_dtype", dtype),
    "dtype": Key("trainer.master_dtype", dtype),
    "model_init_kwargs.torch_dtype": Key("trainer.master_dtype", dtype),
    "model_init_kwargs.dtype": Key("trainer.master_dtype", dtype),
    "attn_implementation": Key("trainer.attention", word),
    "model_init_kwargs.attn_implementation": Key("trainer.attention", word),
    "padding_free": Key("trainer.packing", switch),
    "cast_lm_head_to_fp32": Key("trainer.fp32_head", switch),
    "disable_dropout": Key("trainer.dropout_disabled", switch),
    "per_device_train_batch_size": Key("trainer.micro_batch", number),
    "full_determinism": Key("trainer.deterministic", switch),
    "max_staleness": Key("trainer.staleness", number),
    "weight_sync_steps": Key("weights.sync_every", number),
}
#: Of ModelConfig, where use_peft turns them on, and of peft's own LoraConfig.
_LORA: Final[Mapping[str, Key]] = {
    "lora_r": Key("trainer.lora_rank", rank),
    "r": Key("trainer.lora_rank", rank),
    "lora_alpha": Key("trainer.lora_alpha", number),
    "lora_dropout": Key("trainer.lora_dropout", number),
    "lora_target_modules": Key("trainer.lora_targets_head", targets_head),
    "target_modules": Key("trainer.lora_targets_head", targets_head),
}
#: ModelConfig of TRL 1.16 and LoraConfig of peft: what they mean where nothing else is said.
_LORA_DEFAULTS: Final[Mapping[str, Mapping[str, int | float]]] = {
    "use_peft": {"lora_r": 16, "lora_dropout": 0.05},
    "LoraConfig": {"r": 8, "lora_dropout": 0.0},
}


class Trl:
    reads = "arguments of TRL's online trainers as YAML, JSON, a command line or Python"

    def recognises(self, document: Document) -> bool:
        return any(True for _ in _calls(document))

    def read(self, document: Document) -> Settings:
        known: list[Setting] = []
        merges = "AsyncGRPOConfig" not in document.text
        for pairs in _calls(document):
            known += settings_of(iter(pairs.items()), _KEYS, document)
            known += _derived(pairs, document, merges)
        return Settings(tuple(known))


def _derived(pairs: Mapping[str, Any], document: Document, merges: bool) -> Iterator[Setting]:
    first = pairs.get("config", next(iter(pairs)))
    yield Setting("trainer.framework", "trl", document.where(first))
    if pairs.get("config") == "AsyncGRPOConfig":
        yield Setting("trainer.asynchronous", True, document.where("AsyncGRPOConfig"))
    high = number(pairs.get("epsilon_high", pairs.get("epsilon")))
    if high is not None:
        key = "epsilon_high" if "epsilon_high" in pairs else "epsilon"
        yield Setting("trainer.clip_high", high, document.where(key))
    corrects = correction(pairs.get("vllm_importance_sampling_correction"))
    # The mode, if there is one, has been read; it says nothing where the switch is off.
    if corrects == "off" or (corrects and "vllm_importance_sampling_mode" not in pairs):
        where = document.where("vllm_importance_sampling_correction")
        yield Setting("trainer.correction", corrects, where)
    mode = word(pairs.get("vllm_mode"))
    if mode == "server":
        yield Setting("engine.started_apart", True, document.where("vllm_mode"))
    if mode == "colocate":
        # Set by TRL when it starts the engine itself: trl/generation/vllm_generation.py.
        where = document.where("vllm_mode (TRL sets it for an engine of its own)")
        yield Setting("engine.logprobs_mode", "processed_logprobs", where)
    if switch(pairs.get("use_peft")):
        yield from _adapter(pairs, "use_peft", document, merges)
    elif pairs.get("config") == "LoraConfig":
        yield from _adapter(pairs, "LoraConfig", document, merges)


def _adapter(
    pairs: Mapping[str, Any], by: str, document: Document, merges: bool
) -> Iterator[Setting]:
    yield Setting("trainer.adapter", True, document.where(by))
    for key, default in _LORA_DEFAULTS[by].items():
        if key not in pairs:
            where = document.where(f"{by} ({key} is {default} where it is not given)")
            yield Setting(_LORA[key].name, default, where)
    yield from settings_of(iter(pairs.items()), _LORA, document)
    if merges:
        # TRL adds the adapter to the weights before each transfer: merge_adapter() there.
        # Its asynchronous trainer lets the engine apply a plain one.
        yield Setting("weights.lora_merged", True, document.where(by))


def _calls(document: Document) -> Iterator[Mapping[str, Any]]:
    """Keys and values of each configuration that the document holds."""
    if document.table:
        if len(_ITS_OWN & document.table.keys()) >= 2:
            yield dict(leaves(document.table))
    elif "Config(" in document.text and "import" in document.text:
        yield from _python(document.text)
    elif "--" in document.text:
        yield from _flags(document.text)


def _flags(text: str) -> Iterator[Mapping[str, Any]]:
    for command in read_script(text).commands:
        if not any(word.rpartition("/")[2] in _RUNS for word in command[:3]):
            continue
        pairs: dict[str, Any] = {}
        for index, flag in enumerate(command):
            key, given, value = flag.removeprefix("--").replace("-", "_", 0).partition("=")
            if flag.startswith("--"):
                after = command[index + 1] if index + 1 < len(command) else "--"
                alone = after.startswith("--")
                pairs[key.replace("-", "_")] = value if given else True if alone else after
        if len(_ITS_OWN & pairs.keys()) >= 2:
            yield pairs


# Asked twice for the same text: whether it is ours, and for what it says.
@lru_cache(maxsize=1)
def _python(text: str) -> tuple[Mapping[str, Any], ...]:
    try:
        tree = ast.parse(text if len(text) <= _LONGEST_PYTHON else "")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    if not any(_name(call) in _CONFIGS for call in found):
        return ()
    return tuple(
        {"config": name} | dict(leaves(_literals(call)))
        for call in found
        if (name := _name(call)) in _CONFIGS | _ADAPTERS
    )


def _name(call: ast.Call) -> str:
    function = call.func
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _literals(call: ast.Call) -> dict[str, Any]:
    """Keyword arguments: constants, torch dtypes, dict(…) and {…} of such; None for the rest."""
    return {
        keyword.arg: _literal(keyword.value) for keyword in call.keywords if keyword.arg is not None
    }


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr if node.value.id == "torch" else None
    if isinstance(node, ast.Call) and _name(node) == "dict":
        return _literals(node)
    if isinstance(node, ast.Dict):
        return {
            key.value: value
            for key, inner in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant) and (value := _literal(inner)) is not None
        }
    if isinstance(node, ast.List | ast.Tuple):
        return [value for inner in node.elts if (value := _literal(inner)) is not None]
    return None
