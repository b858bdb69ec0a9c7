"""verl: its YAML, resolved or not, and launch scripts with Hydra overrides.

In: a Document. Out: Settings. Keys are those of verl 0.9.1 (trainer/config/*.yaml) and of the
releases before it as far as recipes still use them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from driftscope_probes.lint.base import Setting, Settings
from driftscope_probes.lint.readers.base import Document, Key, settings_of
from driftscope_probes.lint.readers.script import read_script
from driftscope_probes.lint.readers.trainer_values import (
    capped,
    correction,
    named,
    rank,
    resolved,
    targets_head,
    unless_null,
)
from driftscope_probes.lint.readers.values import dtype, number, switch, word
from driftscope_probes.lint.readers.vllm_arguments import passed_on

_ACTOR: Final = "actor_rollout_ref.actor."
_ROLLOUT: Final = "actor_rollout_ref.rollout."
_MODEL: Final = "actor_rollout_ref.model."
_TRANSFORMER: Final = f"{_ACTOR}megatron.override_transformer_config."
_CORRECTION: Final = "algorithm.rollout_correction."
#: What trains with verl has many names (rLLM's train.py): Python that is given verl's keys.
_PYTHON: Final = re.compile(r"(.*/)?python[\d.]*|.*\.py|(verl\w*|recipe)(\.\w+)+")
_OWN: Final = re.compile(r"verl\.trainer\.main_ppo|(.*/)?main_ppo\.py")
_OWN_CONFIGS: Final = frozenset({"ppo_trainer", "ppo_megatron_trainer"})
_CONFIG: Final = re.compile(r"(--config-name|-cn)=?(?P<name>.*)", re.DOTALL)
_TABLE: Final = re.compile(r"\{(?P<items>[^{}]*)\}")
_OVERRIDE: Final = re.compile(r"\+{0,2}(?P<key>[A-Za-z_]\w*(?:\.\w+)+)=(?P<value>.*)", re.DOTALL)
#: rLLM's: it turns the replay on at both sides.
_RLLM_REPLAY: Final = "algorithm.router_replay"


def _replays(value: Any) -> bool | None:
    """R3 replays the engine's experts; R2 only those of the trainer's own scoring."""
    mode = word(value)
    return None if mode is None else mode == "r3"


def _ratio_of(value: Any) -> str | None:
    """GSPO and GMPO clip a ratio of the whole sequence."""
    mode = word(value)
    return None if mode is None else "sequence" if mode in ("gspo", "gmpo", "geo_mean") else "token"


_KEYS: Final[Mapping[str, Key]] = {
    f"{_ROLLOUT}name": Key("engine.name", word),
    f"{_ROLLOUT}dtype": Key("engine.dtype", dtype),
    f"{_ROLLOUT}quantization": Key("engine.quantization", word),
    f"{_ROLLOUT}enforce_eager": Key("engine.eager", switch),
    f"{_ROLLOUT}tensor_model_parallel_size": Key("engine.tensor_parallel", number),
    f"{_ROLLOUT}enable_prefix_caching": Key("engine.prefix_caching", switch),
    f"{_ROLLOUT}enable_chunked_prefill": Key("engine.chunked_prefill", switch),
    f"{_ROLLOUT}max_num_batched_tokens": Key("engine.max_batched_tokens", number),
    f"{_ROLLOUT}max_num_seqs": Key("engine.max_sequences", number),
    f"{_ROLLOUT}logprobs_mode": Key("engine.logprobs_mode", word),
    f"{_ROLLOUT}free_cache_engine": Key("engine.sleep_mode", switch),
    f"{_ROLLOUT}full_determinism": Key("engine.batch_invariant", switch),
    f"{_ROLLOUT}calculate_log_probs": Key("engine.returns_logprobs", switch),
    f"{_ROLLOUT}enable_rollout_routing_replay": Key("engine.returns_routes", switch),
    f"{_ROLLOUT}temperature": Key("sampling.temperature", number),
    f"{_ROLLOUT}top_p": Key("sampling.top_p", number),
    f"{_ROLLOUT}top_k": Key("sampling.top_k", number),
    # rollout.repetition_penalty reaches no engine: the agent loop asks for 1.0.
    f"{_ROLLOUT}log_prob_micro_batch_size_per_gpu": Key("trainer.scoring_micro_batch", number),
    f"{_MODEL}use_remove_padding": Key("trainer.packing", switch),
    f"{_MODEL}override_config.attn_implementation": Key("trainer.attention", word),
    f"{_MODEL}override_config.attention_dropout": Key("trainer.attention_dropout", number),
    f"{_MODEL}lora_rank": Key("trainer.lora_rank", rank),
    f"{_MODEL}lora_alpha": Key("trainer.lora_alpha", number),
    f"{_MODEL}target_modules": Key("trainer.lora_targets_head", targets_head),
    f"{_MODEL}lora.rank": Key("trainer.lora_rank", rank),
    f"{_MODEL}lora.alpha": Key("trainer.lora_alpha", number),
    f"{_MODEL}lora.dropout": Key("trainer.lora_dropout", number),
    f"{_MODEL}lora.merge": Key("weights.lora_merged", switch),
    f"{_ACTOR}strategy": Key("trainer.backend", word),
    f"{_ACTOR}fsdp_config.dtype": Key("trainer.dtype", dtype),
    f"{_ACTOR}fsdp_config.mixed_precision.param_dtype": Key("trainer.dtype", dtype),
    f"{_ACTOR}fsdp_config.model_dtype": Key("trainer.master_dtype", dtype),
    f"{_ACTOR}fsdp_config.full_determinism": Key("trainer.deterministic", switch),
    f"{_ACTOR}megatron.dtype": Key("trainer.dtype", dtype),
    f"{_ACTOR}megatron.tensor_model_parallel_size": Key("trainer.tensor_parallel", number),
    f"{_ACTOR}megatron.context_parallel_size": Key("trainer.context_parallel", number),
    f"{_ACTOR}megatron.expert_model_parallel_size": Key("trainer.expert_parallel", number),
    f"{_ACTOR}megatron.router_replay.mode": Key("trainer.router_replay", _replays),
    f"{_ACTOR}veomni.router_replay.mode": Key("trainer.router_replay", _replays),
    f"{_ACTOR}router_replay.mode": Key("trainer.router_replay", _replays),
    f"{_ACTOR}ulysses_sequence_parallel_size": Key("trainer.context_parallel", number),
    f"{_ACTOR}fsdp_config.ulysses_sequence_parallel_size": Key("trainer.context_parallel", number),
    f"{_ACTOR}veomni.full_determinism": Key("trainer.deterministic", switch),
    f"{_ACTOR}torchtitan.full_determinism": Key("trainer.deterministic", switch),
    f"{_ACTOR}use_dynamic_bsz": Key("trainer.dynamic_batch", switch),
    f"{_ACTOR}ppo_micro_batch_size_per_gpu": Key("trainer.micro_batch", number),
    f"{_ACTOR}policy_loss.loss_mode": Key("trainer.ratio_of", _ratio_of),
    f"{_ACTOR}use_rollout_log_probs": Key("trainer.old_from_engine", switch),
    f"{_ACTOR}tis_imp_ratio_cap": Key("trainer.correction", capped),
    f"{_TRANSFORMER}moe_router_dtype": Key("trainer.router_dtype", dtype),
    f"{_TRANSFORMER}moe_router_bias_update_rate": Key("trainer.router_bias_rate", number),
    f"{_TRANSFORMER}fp8": Key("trainer.quantization", lambda value: word(value) and "fp8"),
    f"{_ACTOR}fsdp_config.qat.enable": Key("trainer.quantization", named("qat")),
    f"{_ACTOR}megatron.qat.enable": Key("trainer.quantization", named("qat")),
    f"{_TRANSFORMER}attention_dropout": Key("trainer.attention_dropout", number),
    f"{_TRANSFORMER}hidden_dropout": Key("trainer.hidden_dropout", number),
    f"{_TRANSFORMER}deterministic_mode": Key("trainer.deterministic", switch),
    f"{_CORRECTION}rollout_is": Key("trainer.correction", unless_null),
    f"{_CORRECTION}rollout_rs": Key("trainer.rejection", unless_null),
    f"{_CORRECTION}bypass_mode": Key("trainer.old_from_engine", switch),
    f"{_CORRECTION}bypass_old_logprob_for_rollout": Key("trainer.old_from_engine", switch),
    _RLLM_REPLAY: Key("trainer.router_replay", _replays),
    "algorithm.rollout_is": Key("trainer.correction", correction),
    "async_training.trigger_parameter_sync_step": Key("weights.sync_every", number),
    "async_training.partial_rollout": Key("weights.partial_rollout", switch),
}
#: actor.clip_ratio stands for both; the two others say which.
_CLIPS: Final[Mapping[str, tuple[str, ...]]] = {
    f"{_ACTOR}clip_ratio": ("trainer.clip_low", "trainer.clip_high"),
    f"{_ACTOR}clip_ratio_low": ("trainer.clip_low",),
    f"{_ACTOR}clip_ratio_high": ("trainer.clip_high",),
}


class Verl:
    reads = "verl's YAML and launch scripts with its overrides"

    def recognises(self, document: Document) -> bool:
        if document.table:
            return "actor_rollout_ref" in document.table
        return "actor_rollout_ref." in document.text and any(True for _ in _overrides(document))

    def read(self, document: Document) -> Settings:
        pairs = dict(resolved(document.table) if document.table else _overrides(document))
        if switch(pairs.get(f"{_ROLLOUT}log_prob_use_dynamic_bsz")):
            pairs.pop(f"{_ROLLOUT}log_prob_micro_batch_size_per_gpu", None)
        found = passed_on(pairs, f"{_ROLLOUT}engine_kwargs.vllm.", document)
        found += settings_of(iter(pairs.items()), _KEYS, document)
        return found + Settings(tuple(_derived(pairs, document)))


def _derived(pairs: Mapping[str, Any], document: Document) -> Iterator[Setting]:
    for key, value in pairs.items():
        clip = number(value) if key in _CLIPS else None
        if clip is not None:
            for name in _CLIPS[key]:
                yield Setting(name, clip, document.where(key))
    asynchronous = next((key for key in pairs if key.startswith("async_training.")), None)
    if asynchronous is not None:
        yield Setting("trainer.asynchronous", True, document.where(asynchronous))
    # Of Hydra: "defaults" is a list in YAML.
    base = next((key for key in ("defaults", "--config-name") if key in pairs), None)
    if base is not None:
        yield Setting("trainer.adds_to", base, document.where(base))
    drafting = f"{_MODEL}mtp.enable_rollout"
    if switch(pairs.get(drafting)) and switch(pairs.get(f"{_MODEL}mtp.enable")):
        yield Setting("engine.speculative", "mtp", document.where(drafting))
    if _replays(pairs.get(_RLLM_REPLAY)):
        yield Setting("engine.returns_routes", True, document.where(_RLLM_REPLAY))
    first = next(
        (key for key in pairs if key.startswith("actor_rollout_ref.")), "actor_rollout_ref"
    )
    yield Setting("trainer.framework", "verl", document.where(first))
    backend = next((key for key in pairs if key.startswith(f"{_ACTOR}megatron.")), None)
    if backend is not None and f"{_ACTOR}strategy" not in pairs:
        yield Setting("trainer.backend", "megatron", document.where(backend))


def _overrides(document: Document) -> Iterator[tuple[str, Any]]:
    """Of the commands that train: Hydra overrides, whose values are YAML."""
    for command in read_script(document.text).commands:
        overrides = [match for word in command if (match := _OVERRIDE.fullmatch(word))]
        ours = any(match["key"].startswith("actor_rollout_ref.") for match in overrides)
        if ours and any(_PYTHON.fullmatch(word) for word in command):
            for match in overrides:
                yield from _values(match["key"], match["value"])
            if (base := _base(command)) is not None:
                yield "--config-name", base


def _base(command: Sequence[str]) -> str | None:
    """A configuration that the overrides add to, unless it is one of verl's two for PPO."""
    for place, argument in enumerate(command):
        if (match := _CONFIG.fullmatch(argument)) is not None:
            name = match["name"] or "".join(command[place + 1 : place + 2])
            return None if name.removesuffix(".yaml") in _OWN_CONFIGS else name
    if any(map(_OWN.fullmatch, command)):
        return None
    return next(filter(_PYTHON.fullmatch, reversed(command)), None)


def _values(key: str, written: str) -> Iterator[tuple[str, Any]]:
    """Of a table, "{a:b,c:d}", each of its values."""
    table = _TABLE.fullmatch(written.strip())
    if table is None:
        yield key, _value(written)
        return
    for item in table["items"].split(","):
        name, _, value = item.partition(":")
        yield f"{key}.{name.strip()}", _value(value)


def _value(written: str) -> str | None:
    """Numbers, switches and lists stay text, which the converters read."""
    bare = written.strip().strip("[]\"'")
    return None if bare.lower() in ("null", "none", "~") else bare
