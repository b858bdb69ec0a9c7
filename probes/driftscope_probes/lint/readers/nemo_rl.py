"""NeMo-RL: its YAML, base files and recipes that add to one.

In: a Document. Out: Settings. Keys are those of examples/configs as of October 2026. What a recipe
takes over from the file that its `defaults` names is not known: no name in a file is followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from driftscope_probes.lint.base import Setting, Settings
from driftscope_probes.lint.readers.base import Document, Key, settings_of
from driftscope_probes.lint.readers.trainer_values import (
    capped,
    correction,
    rank,
    resolved,
    sequence_switch,
)
from driftscope_probes.lint.readers.values import dtype, number, scalar, switch, word
from driftscope_probes.lint.readers.vllm_arguments import passed_on

_MEGATRON: Final = "policy.megatron_cfg."
_TENSOR: Final = "policy.dtensor_cfg."
_VLLM: Final = "policy.generation.vllm_cfg."
_ASYNC: Final = "grpo.async_grpo."


def _head(value: Any) -> bool | None:
    """TF32 computes an fp32 head exactly here: its inputs are bf16 (nemo pull 3936)."""
    return True if word(value) == "tf32" else switch(value)


_KEYS: Final[Mapping[str, Key]] = {
    "defaults": Key("trainer.adds_to", scalar),
    "policy.precision": Key("trainer.dtype", dtype),
    "policy.sequence_packing.enabled": Key("trainer.packing", switch),
    "policy.dynamic_batching.enabled": Key("trainer.dynamic_batch", switch),
    "policy.train_micro_batch_size": Key("trainer.micro_batch", number),
    "policy.logprob_batch_size": Key("trainer.scoring_micro_batch", number),
    "policy.router_replay.enabled": Key("trainer.router_replay", switch),
    "policy.generation.backend": Key("engine.name", word),
    "policy.generation.temperature": Key("sampling.temperature", number),
    "policy.generation.top_p": Key("sampling.top_p", number),
    "policy.generation.top_k": Key("sampling.top_k", number),
    f"{_VLLM}precision": Key("engine.dtype", dtype),
    f"{_VLLM}kv_cache_dtype": Key("engine.kv_cache_dtype", dtype),
    f"{_VLLM}tensor_parallel_size": Key("engine.tensor_parallel", number),
    f"{_VLLM}enforce_eager": Key("engine.eager", switch),
    f"{_VLLM}fp32_lm_head": Key("engine.fp32_head", _head),
    f"{_VLLM}env_vars.NRL_VLLM_FP32_LM_HEAD": Key("engine.fp32_head", switch),
    "loss_fn.ratio_clip_min": Key("trainer.clip_low", number),
    "loss_fn.ratio_clip_max": Key("trainer.clip_high", number),
    "loss_fn.use_importance_sampling_correction": Key("trainer.correction", correction),
    "loss_fn.truncated_importance_sampling_ratio": Key(
        "trainer.correction", lambda value: None if value is None else capped(value)
    ),
    "loss_fn.sequence_level_importance_ratios": Key("trainer.ratio_of", sequence_switch),
}
_BACKENDS: Final[Mapping[str, Mapping[str, Key]]] = {
    "megatron": {
        f"{_MEGATRON}tensor_model_parallel_size": Key("trainer.tensor_parallel", number),
        f"{_MEGATRON}context_parallel_size": Key("trainer.context_parallel", number),
        f"{_MEGATRON}expert_model_parallel_size": Key("trainer.expert_parallel", number),
        f"{_MEGATRON}moe_router_dtype": Key("trainer.router_dtype", dtype),
        f"{_MEGATRON}moe_router_bias_update_rate": Key("trainer.router_bias_rate", number),
        f"{_MEGATRON}fp32_lm_head": Key("trainer.fp32_head", _head),
        f"{_MEGATRON}optimizer.params_dtype": Key("trainer.master_dtype", dtype),
        f"{_MEGATRON}peft.dim": Key("trainer.lora_rank", rank),
        f"{_MEGATRON}peft.alpha": Key("trainer.lora_alpha", number),
        f"{_MEGATRON}peft.dropout": Key("trainer.lora_dropout", number),
    },
    "dtensor": {
        f"{_TENSOR}tensor_parallel_size": Key("trainer.tensor_parallel", number),
        f"{_TENSOR}context_parallel_size": Key("trainer.context_parallel", number),
        f"{_TENSOR}expert_parallel_size": Key("trainer.expert_parallel", number),
        f"{_TENSOR}lora_cfg.dim": Key("trainer.lora_rank", rank),
        f"{_TENSOR}lora_cfg.alpha": Key("trainer.lora_alpha", number),
        f"{_TENSOR}lora_cfg.dropout": Key("trainer.lora_dropout", number),
    },
}
#: Counts for nothing while async_grpo.enabled is false.
_WHILE_ASYNC: Final[Mapping[str, Key]] = {
    f"{_ASYNC}enabled": Key("trainer.asynchronous", switch),
    f"{_ASYNC}max_trajectory_age_steps": Key("trainer.staleness", number),
    f"{_ASYNC}in_flight_weight_updates": Key("weights.in_flight", switch),
    f"{_ASYNC}recompute_kv_cache_after_weight_updates": Key("weights.cache_recomputed", switch),
}


class NemoRl:
    reads = "NeMo-RL's YAML"

    def recognises(self, document: Document) -> bool:
        policy = document.table.get("policy")
        return isinstance(policy, Mapping) and bool(
            {"megatron_cfg", "dtensor_cfg", "generation", "sequence_packing"} & policy.keys()
        )

    def read(self, document: Document) -> Settings:
        pairs = dict(resolved(document.table))
        keys = dict(_KEYS)
        backend = _backend(pairs)
        if backend is not None:
            keys |= {key: value for key, value in _BACKENDS[backend].items() if _on(key, pairs)}
        if switch(pairs.get(f"{_ASYNC}enabled")):
            keys |= _WHILE_ASYNC
        found = passed_on(pairs, "policy.generation.vllm_kwargs.", document)
        found += settings_of(iter(pairs.items()), keys, document)
        return found + Settings(tuple(_derived(pairs, backend, document)))


def _backend(pairs: Mapping[str, Any]) -> str | None:
    """The one that is on; a recipe that says nothing of it sets only what it uses."""
    for backend, place in (("megatron", _MEGATRON), ("dtensor", _TENSOR)):
        if switch(pairs.get(f"{place}enabled")):
            return backend
    off = [switch(pairs.get(f"{place}enabled")) is False for place in (_MEGATRON, _TENSOR)]
    used = [any(key.startswith(place) for key in pairs) for place in (_MEGATRON, _TENSOR)]
    if used[0] and not off[0]:
        return "megatron"
    return "dtensor" if used[1] and not off[1] else None


def _on(key: str, pairs: Mapping[str, Any]) -> bool:
    """An adapter's block counts where it is switched on."""
    block = key.rpartition(".")[0]
    return not block.endswith(("peft", "lora_cfg")) or bool(switch(pairs.get(f"{block}.enabled")))


def _derived(
    pairs: Mapping[str, Any], backend: str | None, document: Document
) -> Iterator[Setting]:
    first = next((key for key in pairs if key.startswith("policy.")), "policy")
    yield Setting("trainer.framework", "nemo-rl", document.where(first))
    if backend is not None:
        place = {"megatron": _MEGATRON, "dtensor": _TENSOR}[backend]
        yield Setting("trainer.backend", backend, document.where(place.rstrip(".")))
    fp8 = f"{_MEGATRON}fp8_cfg.enabled"
    if backend == "megatron" and switch(pairs.get(fp8)):
        yield Setting("trainer.quantization", "fp8", document.where(fp8))
    engine = next((key for key in pairs if key.startswith(_VLLM)), None)
    if engine is not None and "policy.generation.backend" not in pairs:
        yield Setting("engine.name", "vllm", document.where(engine))
    if word(pairs.get(f"{_VLLM}precision")) == "fp8":
        yield Setting("engine.quantization", "fp8", document.where(f"{_VLLM}precision"))
