"""slime and miles: launch scripts with argument lists (ROLLOUT_ARGS=(--rollout-temperature 1 …)).

In: a Document. Out: Settings. Flags are those of slime/utils/arguments.py, Megatron-LM and SGLang
(`--sglang-…`) as of October 2026. What a script sources, such as scripts/models/*.sh, is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from driftscope_probes.lint.base import Setting, Settings
from driftscope_probes.lint.readers.base import Document, Key, settings_of
from driftscope_probes.lint.readers.script import read_script
from driftscope_probes.lint.readers.trainer_values import named, rank
from driftscope_probes.lint.readers.values import dtype, number, opposite, switch, text, word

#: In the JSON of Ray's runtime environment or exported: the trainer rounds on the engine's grid.
_FAKE_QUANTISED: Final = re.compile(
    r"OPEN_TRAINING_(?P<grid>INT4|NVFP4)_FAKE_QAT_FLAG[\\\"'\s:=]+(?:1|true)\b"
)
_PROGRAMS: Final = ("train.py", "train_async.py")


def _estimator(value: Any) -> str | None:
    said = word(value)
    return None if said is None else "sequence" if said == "gspo" else "token"


def _custom(value: Any) -> str | None:
    return "custom" if text(value) else None


_KEYS: Final[Mapping[str, Key]] = {
    "--hf-checkpoint": Key("engine.model", text),
    "--rollout-temperature": Key("sampling.temperature", number),
    "--rollout-top-p": Key("sampling.top_p", number),
    "--rollout-top-k": Key("sampling.top_k", number),
    "--rollout-num-gpus-per-engine": Key("engine.tensor_parallel", number),
    "--sglang-dtype": Key("engine.dtype", dtype),
    "--sglang-quantization": Key("engine.quantization", word),
    "--sglang-kv-cache-dtype": Key("engine.kv_cache_dtype", dtype),
    "--sglang-attention-backend": Key("engine.attention_backend", word),
    "--sglang-disable-radix-cache": Key("engine.prefix_caching", opposite),
    "--sglang-disable-cuda-graph": Key("engine.eager", switch),
    "--sglang-enable-fp32-lm-head": Key("engine.fp32_head", switch),
    "--sglang-enable-deterministic-inference": Key("engine.batch_invariant", switch),
    "--sglang-speculative-algorithm": Key("engine.speculative", word),
    "--sglang-chunked-prefill-size": Key("engine.max_batched_tokens", number),
    "--use-rollout-routing-replay": Key("trainer.router_replay", switch),
    "--int4-params-rollout": Key("engine.quantization", named("int4")),
    "--bf16": Key("trainer.dtype", named("bf16")),
    "--fp16": Key("trainer.dtype", named("fp16")),
    "--fp8-format": Key("trainer.quantization", lambda value: "fp8" if word(value) else None),
    "--fp16-lm-cross-entropy": Key("trainer.half_cross_entropy", switch),
    "--fp32-lm-head": Key("trainer.fp32_head", switch),
    "--moe-router-dtype": Key("trainer.router_dtype", dtype),
    "--moe-router-bias-update-rate": Key("trainer.router_bias_rate", number),
    "--attention-dropout": Key("trainer.attention_dropout", number),
    "--hidden-dropout": Key("trainer.hidden_dropout", number),
    "--tensor-model-parallel-size": Key("trainer.tensor_parallel", number),
    "--context-parallel-size": Key("trainer.context_parallel", number),
    "--expert-model-parallel-size": Key("trainer.expert_parallel", number),
    "--use-dynamic-batch-size": Key("trainer.dynamic_batch", switch),
    "--micro-batch-size": Key("trainer.micro_batch", number),
    "--deterministic-mode": Key("trainer.deterministic", switch),
    "--train-backend": Key("trainer.backend", word),
    "--use-tis": Key("trainer.correction", named("token")),
    "--custom-tis-function-path": Key("trainer.correction", _custom),
    "--use-rollout-logprobs": Key("trainer.old_from_engine", switch),
    "--get-mismatch-metrics": Key("trainer.compares", switch),
    "--eps-clip": Key("trainer.clip_low", number),
    "--advantage-estimator": Key("trainer.ratio_of", _estimator),
    "--lora-rank": Key("trainer.lora_rank", rank),
    "--lora-alpha": Key("trainer.lora_alpha", number),
    "--lora-dropout": Key("trainer.lora_dropout", number),
    "--update-weights-interval": Key("weights.sync_every", number),
    "--partial-rollout": Key("weights.partial_rollout", switch),
    "--mask-offpolicy-in-partial-rollout": Key("weights.old_tokens_masked", switch),
    "--max-weight-staleness": Key("trainer.staleness", number),
}
#: Arrays of flags that the script takes from elsewhere; slime's models' files set no more than
#: shapes, and DISTRIBUTED_ARGS is a rest of earlier scripts.
_ELSEWHERE: Final = re.compile(r"\$\{(?!MODEL_ARGS|DISTRIBUTED_ARGS)\w+\[[@*]\]\}")


class Slime:
    reads = "launch scripts of slime and miles"

    def recognises(self, document: Document) -> bool:
        return not document.table and any(True for _ in _trainings(document))

    def read(self, document: Document) -> Settings:
        known: list[Setting] = []
        for command in _trainings(document):
            pairs = _flags(command)
            known += settings_of(iter(pairs.items()), _KEYS, document)
            known += _derived(command, pairs, document)
        if fake := _FAKE_QUANTISED.search(document.text):
            where = document.where(fake[0].partition("FLAG")[0] + "FLAG")
            known.append(Setting("trainer.quantization", fake["grid"].lower(), where))
        return Settings(tuple(known))


def _trainings(document: Document) -> Iterator[Sequence[str]]:
    """Commands with slime's program and its flags: other trainers have a train.py too."""
    if "--rollout-" not in document.text:
        return
    for command in read_script(document.text).commands:
        program = any(word.rpartition("/")[2] in _PROGRAMS for word in command)
        if program and any(word.startswith("--rollout-") for word in command):
            yield command


def _flags(command: Sequence[str]) -> dict[str, Any]:
    """Flag → its value; True for a flag without one. A later one holds."""
    pairs: dict[str, Any] = {}
    for index, flag in enumerate(command):
        if flag.startswith("--") and len(flag) > 2:
            key, given, value = flag.partition("=")
            after = command[index + 1] if index + 1 < len(command) else "--"
            # "$X" may be an array of other flags: switches of slime take no value.
            pairs[key] = value if given else True if after.startswith(("--", "$")) else after
    return pairs


def _derived(
    command: Sequence[str], pairs: Mapping[str, Any], document: Document
) -> Iterator[Setting]:
    program = next(word for word in command if word.rpartition("/")[2] in _PROGRAMS)
    yield Setting("trainer.framework", "slime", document.where(program))
    yield Setting("engine.name", "sglang", document.where(program))
    if (elsewhere := next(filter(_ELSEWHERE.fullmatch, command), None)) is not None:
        yield Setting("trainer.adds_to", elsewhere, document.where(elsewhere))
    if program.endswith("train_async.py"):
        yield Setting("trainer.asynchronous", True, document.where(program))
    if "--train-backend" not in pairs:
        backend = "megatron" if "--tensor-model-parallel-size" in pairs else None
        if backend is not None:
            where = document.where("--tensor-model-parallel-size")
            yield Setting("trainer.backend", backend, where)
    if "--sglang-enable-fp32-lm-head" in pairs and "--fp32-lm-head" not in pairs:
        # Megatron's output layer computes in the dtype of its weights and is cast afterwards.
        where = document.where("--sglang-enable-fp32-lm-head (without --fp32-lm-head)")
        yield Setting("trainer.fp32_head", False, where)
    high = "--eps-clip-high" if "--eps-clip-high" in pairs else "--eps-clip"
    clip = number(pairs.get(high))
    if clip is not None:
        yield Setting("trainer.clip_high", clip, document.where(high))
    if switch(pairs.get("--use-rollout-routing-replay")):
        where = document.where("--use-rollout-routing-replay")
        yield Setting("engine.returns_routes", True, where)
