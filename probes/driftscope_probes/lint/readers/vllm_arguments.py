"""Arguments of vLLM → engine: a command line in a script or manifest, YAML or JSON of arguments.

In: a document. Out: settings. Names are those of vLLM 0.32 and those that earlier versions had.
`engine_settings` reads the arguments that a trainer's configuration passes on.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

from driftscope_probes.lint.base import Setting, Settings
from driftscope_probes.lint.readers import values
from driftscope_probes.lint.readers.base import Document, Key, leaves, settings_of
from driftscope_probes.lint.readers.script import Script, read_script


def _mode(value: Any) -> str | None:
    """Of CUDA graphs: here NONE is a mode."""
    return "none" if str(value).strip().lower() in ("none", "0") else values.word(value)


def _is_fp32(value: Any) -> bool | None:
    said = values.dtype(value)
    return None if said is None else said == "fp32"


KEYS: Final[Mapping[str, Key]] = {
    "model": Key("engine.model", values.text),
    "tokenizer": Key("engine.tokenizer", values.text),
    "tokenizer_mode": Key("engine.tokenizer_mode", values.word),
    "chat_template": Key("engine.chat_template", values.text),
    "dtype": Key("engine.dtype", values.dtype),
    "quantization": Key("engine.quantization", values.word),
    "kv_cache_dtype": Key("engine.kv_cache_dtype", values.word),
    "calculate_kv_scales": Key("engine.kv_scales", values.switch),
    "enable_prefix_caching": Key("engine.prefix_caching", values.switch),
    "enable_chunked_prefill": Key("engine.chunked_prefill", values.switch),
    "max_num_batched_tokens": Key("engine.max_batched_tokens", values.number),
    "max_num_seqs": Key("engine.max_sequences", values.number),
    "max_model_len": Key("engine.max_length", values.number),
    "enforce_eager": Key("engine.eager", values.switch),
    "disable_cascade_attn": Key("engine.cascade_attention", values.opposite),
    "attention_backend": Key("engine.attention_backend", values.word),
    "attention_config.backend": Key("engine.attention_backend", values.word),
    "attention_config.flash_attn_version": Key("engine.flash_attention_version", values.number),
    "disable_sliding_window": Key("engine.sliding_window_off", values.switch),
    "tensor_parallel_size": Key("engine.tensor_parallel", values.number),
    "pipeline_parallel_size": Key("engine.pipeline_parallel", values.number),
    "data_parallel_size": Key("engine.data_parallel", values.number),
    "enable_expert_parallel": Key("engine.expert_parallel", values.switch),
    "disable_custom_all_reduce": Key("engine.custom_all_reduce", values.opposite),
    "logprobs_mode": Key("engine.logprobs_mode", values.word),
    "max_logprobs": Key("engine.max_logprobs", values.number),
    "generation_config": Key("engine.generation_config", values.text),
    "speculative_config": Key("engine.speculative", values.there),
    "speculative_config.method": Key("engine.speculative", values.word),
    "speculative_config.model": Key("engine.draft_model", values.text),
    "speculative_model": Key("engine.speculative", values.word),
    "spec_method": Key("engine.speculative", values.word),
    "spec_model": Key("engine.draft_model", values.text),
    "async_scheduling": Key("engine.async_scheduling", values.switch),
    "enable_sleep_mode": Key("engine.sleep_mode", values.switch),
    "enable_return_routed_experts": Key("engine.returns_routes", values.switch),
    "enable_flashinfer_autotune": Key("engine.autotune", values.switch),
    "kernel_config.enable_flashinfer_autotune": Key("engine.autotune", values.switch),
    "mamba_ssm_cache_dtype": Key("engine.state_dtype", values.dtype),
    "mamba_cache_dtype": Key("engine.convolution_state_dtype", values.dtype),
    "enable_mamba_cache_stochastic_rounding": Key("engine.state_rounded_at_random", values.switch),
    "enable_lora": Key("engine.lora", values.switch),
    "lora_dtype": Key("engine.lora_dtype", values.dtype),
    "model_impl": Key("engine.model_implementation", values.word),
    "load_format": Key("engine.load_format", values.word),
    "hf_overrides": Key("engine.overrides_config", values.there),
    "hf_overrides.head_dtype": Key("engine.fp32_head", _is_fp32),
    "rope_scaling": Key("engine.overrides_rope", values.there),
    "rope_theta": Key("engine.overrides_rope", values.there),
    "compilation_config": Key("engine.compilation", values.scalar),
    "compilation_config.cudagraph_mode": Key("engine.cudagraph_mode", _mode),
    "compilation_config.mode": Key("engine.compilation", values.scalar),
    "compilation_config.level": Key("engine.compilation", values.scalar),
    "seed": Key("engine.seed", values.number),
    "watermark_config": Key("engine.watermark", values.there),
    "kv_sharing_fast_prefill": Key("engine.fast_prefill", values.switch),
    "cpu_offload_gb": Key("engine.offload", values.number),
    **{
        f"override_generation_config.{name}": Key(f"sampling.{name}", values.number)
        for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    },
}
_SHORT: Final[Mapping[str, str]] = {
    "-tp": "tensor_parallel_size",
    "-pp": "pipeline_parallel_size",
    "-dp": "data_parallel_size",
    "-ep": "enable_expert_parallel",
    "-q": "quantization",
    "-sc": "speculative_config",
    "-cc": "compilation_config",
    "-ac": "attention_config",
    "-O": "compilation_config",
}
#: Arguments that change no number, by which a file of arguments is known nevertheless.
_OTHERS: Final = frozenset(
    {
        *("host", "port", "served_model_name", "gpu_memory_utilization", "trust_remote_code"),
        *("api_key", "uvicorn_log_level", "block_size", "swap_space", "tool_call_parser"),
        *("enable_auto_tool_choice", "reasoning_parser", "limit_mm_per_prompt"),
        *("compilation_config", "speculative_config", "attention_config", "kernel_config"),
        *("override_generation_config", "disable_log_requests", "revision"),
        *("distributed_executor_backend", "disable_log_stats", "download_dir", "config_format"),
        *(
            "stream_interval",
            "max_cudagraph_capture_size",
            "cuda_graph_sizes",
            "language_model_only",
        ),
    }
)
#: Arguments that say something by being there, whatever is in them.
_WHOLE: Final = ("hf_overrides", "rope_scaling", "watermark_config")
_SWITCHES: Final = frozenset(
    {name for name, key in KEYS.items() if key.convert in (values.switch, values.opposite)}
)
_IMAGE: Final = re.compile(r"(?:.*/)?vllm-openai(?:[\w-]*)(?::v?(?P<version>\d[\w.]*))?.*")
#: Commands that only handle an image, and start nothing.
_HANDLES: Final = frozenset({"pull", "push", "tag", "build", "inspect", "save", "rmi"})
_MARK: Final = "vllm"
#: How deep a manifest is searched for command lines.
_DEEPEST: Final = 12


class VllmArguments:
    reads = "arguments of vLLM: a command line in a script or manifest, YAML or JSON"

    def recognises(self, document: Document) -> bool:
        return _is_table(document.table) or any(True for _ in _command_lines(document))

    def read(self, document: Document) -> Settings:
        if _is_table(document.table):
            return engine_settings(document.table, document)
        # The first engine of several: rules that joined flags of two would speak of neither.
        arguments = next(_command_lines(document))
        return engine_settings(arguments, document, prefix="--")


def engine_settings(
    arguments: Mapping[str, Any], document: Document, *, prefix: str = ""
) -> Settings:
    """Of arguments by name, with "-" or "_"; `prefix` stands before them where they are found."""
    named: dict[str, Any] = {}
    written: dict[str, str] = {}
    for name, value in arguments.items():
        plain = str(name).replace("-", "_")
        if plain.removeprefix("no_") in _SWITCHES and plain not in _SWITCHES:
            # "no-enable-prefix-caching: true" stands in vLLM's own recipes.
            plain, value = plain.removeprefix("no_"), values.opposite(value)
        named[plain], written[plain] = _parsed(value), str(name)
    found = settings_of(leaves(named), KEYS, document)
    known = [Setting("engine.name", "vllm", document.name)]
    for one in found:
        key = one.where.removeprefix(f"{document.name}: ")
        first, dot, rest = key.partition(".")
        shown = f"{prefix}{written.get(first, written.get(key, first))}{dot}{rest}"
        known.append(Setting(one.name, one.value, document.where(shown)))
    for name in _WHOLE:
        whole = named.get(name)
        if isinstance(whole, Mapping) and whole:
            where = document.where(f"{prefix}{written[name]}")
            known.append(Setting(KEYS[name].name, True, where))
            if name == "hf_overrides" and any(key.startswith("rope") for key in _all_keys(whole)):
                known.append(Setting("engine.overrides_rope", True, where))
    version = named.get("image_version")
    if isinstance(version, str):
        known.append(Setting("engine.version", version, document.where("image")))
    speculative = named.get("speculative_config")
    if isinstance(speculative, Mapping) and speculative and "method" not in speculative:
        where = document.where(f"{prefix}{written['speculative_config']}")
        known.append(Setting("engine.speculative", "draft_model", where))
    return Settings(tuple(known))


def passed_on(pairs: Mapping[str, Any], prefix: str, document: Document) -> Settings:
    """Of a trainer's dotted keys: the arguments below `prefix`, if there are any."""
    arguments = {
        key.removeprefix(prefix): value for key, value in pairs.items() if key.startswith(prefix)
    }
    return engine_settings(arguments, document, prefix=prefix) if arguments else Settings()


def _parsed(value: Any) -> Any:
    """JSON that a shell or YAML passes on as a text."""
    if isinstance(value, str) and value.strip().startswith("{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _all_keys(table: Mapping[str, Any]) -> Iterator[str]:
    for key, _ in leaves(table):
        yield from key.split(".")


def _is_table(table: Mapping[str, Any]) -> bool:
    """Most of its keys are vLLM's own, and at least two."""
    first = {key.partition(".")[0] for key in KEYS} | _OTHERS
    plain = (str(name).replace("-", "_").removeprefix("no_") for name in table)
    known = sum(name.partition(".")[0] in first for name in plain)
    return known >= 2 and 2 * known >= len(table)


def _command_lines(document: Document) -> Iterator[dict[str, Any]]:
    """Arguments of each command that starts vLLM."""
    if _MARK not in document.text:
        return
    if not document.table:
        yield from _of_script(read_script(document.text))
        return
    for found in _commands_within(document.table, 1):
        if isinstance(found, str):
            yield from _of_script(read_script(found))
        else:
            yield from _of_script(Script({}, (tuple(found),)))


def _commands_within(value: Any, depth: int) -> Iterator[str | list[str]]:
    """Of a manifest: texts that name vLLM, and a container's command with its args."""
    if depth > _DEEPEST:
        return
    if isinstance(value, str):
        if _MARK in value and len(value.split()) > 1:
            yield value
    elif isinstance(value, Mapping):
        words = [
            str(word)
            for key in ("image", "command", "args")
            for word in _as_list(value.get(key))
            if isinstance(word, str | int | float)
        ]
        if isinstance(value.get("args") or value.get("command"), list):
            # ["sh", "-c", "vllm serve …"] is a script; ["vllm", "serve", …] is a command.
            yield from (word for word in words if _MARK in word and len(word.split()) > 1)
            yield words
        else:
            for inner in value.values():
                yield from _commands_within(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _commands_within(inner, depth + 1)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _of_script(script: Script) -> Iterator[dict[str, Any]]:
    for command in script.commands:
        arguments = _of_command(command)
        if arguments is not None:
            yield arguments


def _of_command(command: tuple[str, ...]) -> dict[str, Any] | None:
    """None: this command does not start vLLM."""
    version = None
    for index, word in enumerate(command):
        image = None if "=" in word or _HANDLES & {*command[:index]} else _IMAGE.fullmatch(word)
        if image and len(command) > index + 1:
            version = image["version"]
            if command[index + 1 : index + 3] != ("vllm", "serve"):
                return _with_version(_options(command[index + 1 :]), version)
        elif word.rpartition("/")[2] == "vllm" and command[index + 1 : index + 2] == ("serve",):
            return _with_version(_options(command[index + 2 :]), version)
        elif word.startswith("vllm.entrypoints.") and command[index - 1] == "-m":
            return _with_version(_options(command[index + 1 :]), version)
    return None


def _with_version(arguments: dict[str, Any], version: str | None) -> dict[str, Any]:
    return arguments if version is None else {**arguments, "image_version": version}


def _options(words: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    left = deque(words)
    while left:
        word = left.popleft()
        if not word.startswith("-"):
            found.setdefault("model", word)
            continue
        name, equals, value = word.partition("=")
        short, dot, rest = name.partition(".")
        option = f"{_SHORT.get(short, short.removeprefix('--'))}{dot}{rest}"
        if re.fullmatch(r"-O\d", word):
            found["compilation_config"] = int(word[2:])
        elif equals:
            found[option] = value
        elif option.replace("-", "_") in _SWITCHES or not left or left[0].startswith("--"):
            plain = option.removeprefix("no-")
            if option != plain:
                found[plain] = False
            elif left and values.switch(left[0]) is not None:
                found[option] = left.popleft()
            else:
                found[option] = True
        else:
            found[option] = left.popleft()
    return found
