"""A running vLLM server → engine, environment, machine: what it tells about itself over HTTP.

In: an address that the user of the command line gave; nothing that came over a network leads here.
Out: settings. /version and /v1/models always answer; /server_info, with all arguments after their
defaults, only where the server was started with VLLM_SERVER_DEV_MODE=1.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from driftscope_probes.errors import EngineError, RequestError
from driftscope_probes.lint.base import Setting, Settings
from driftscope_probes.lint.readers.base import Document, Key, leaves, settings_of
from driftscope_probes.lint.readers.environment import Environment, environment_settings
from driftscope_probes.lint.readers.vllm_arguments import KEYS

TIMEOUT_S: Final = 5.0
#: The first answer waits for the server to look at its host: 3 s on an idle machine of two cores,
#: more than 5 s on a busy one.
INFO_TIMEOUT_S: Final = 30.0
#: vLLM 0.32 answers with 25 kB.
LARGEST: Final = 4 * 1024**2
SCHEMES: Final = ("http://", "https://")
#: Where VllmConfig of 0.32 keeps what an argument of another name says.
_PLACES: Final[Mapping[str, str]] = {
    "cache_config.cache_dtype": "kv_cache_dtype",
    "aux_output_config.enable_return_routed_experts": "enable_return_routed_experts",
    "mamba_config.enable_stochastic_rounding": "enable_mamba_cache_stochastic_rounding",
    "attention_config.backend": "attention_backend",
    "attention_config.flash_attn_version": "attention_config.flash_attn_version",
    "kernel_config.enable_flashinfer_autotune": "enable_flashinfer_autotune",
    "compilation_config.cudagraph_mode": "compilation_config.cudagraph_mode",
    "compilation_config.mode": "compilation_config.mode",
    "speculative_config.method": "spec_method",
    **{
        f"{section}.{name}": name
        for section, names in {
            "model_config": (
                *("model", "tokenizer", "dtype", "quantization", "max_model_len", "enforce_eager"),
                *("disable_cascade_attn", "logprobs_mode", "max_logprobs", "generation_config"),
                *("enable_sleep_mode", "model_impl", "seed"),
            ),
            "cache_config": (
                *("enable_prefix_caching", "mamba_cache_dtype", "mamba_ssm_cache_dtype"),
                "kv_sharing_fast_prefill",
            ),
            "scheduler_config": (
                *("max_num_batched_tokens", "max_num_seqs", "enable_chunked_prefill"),
                "async_scheduling",
            ),
            "parallel_config": (
                *("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"),
                *("enable_expert_parallel", "disable_custom_all_reduce"),
            ),
            "load_config": ("load_format",),
        }.items()
        for name in names
    },
    **{
        f"model_config.override_generation_config.{name}": f"override_generation_config.{name}"
        for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    },
}
_INFO_KEYS: Final[Mapping[str, Key]] = {place: KEYS[name] for place, name in _PLACES.items()}
#: Sections that are null where the feature is off.
_SECTIONS: Final[Mapping[str, str]] = {
    "lora_config": "engine.lora",
    "watermark_config": "engine.watermark",
}
#: Its values are defaults, not settings, on a server that runs on GPUs.
_CPU_ONLY: Final = "VLLM_CPU_"


def read_server(address: str) -> Settings:
    """Raises RequestError for an address that is none, EngineError for a server that is absent."""
    if not address.startswith(SCHEMES):
        raise RequestError(
            f"{address} is no address of a server.",
            remedy="give it with http:// or https://, for example http://127.0.0.1:8000.",
        )
    address = address.rstrip("/")
    version = _ask(address, "/version", TIMEOUT_S) or {}
    models = _ask(address, "/v1/models", TIMEOUT_S) or {}
    known = Settings(tuple(_of_listing(address, version, models)))
    info = _ask(address, "/server_info?config_format=json", INFO_TIMEOUT_S)
    return known if info is None else known + _of_info(f"{address}/server_info", info)


def _of_listing(
    address: str, version: Mapping[str, Any], models: Mapping[str, Any]
) -> Iterator[Setting]:
    yield Setting("engine.name", "vllm", address)
    if isinstance(version.get("version"), str):
        yield Setting("engine.version", version["version"], f"{address}/version")
    data = models.get("data")
    first = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
    for key, name in (("root", "engine.model"), ("max_model_len", "engine.max_length")):
        value = first.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool):
            yield Setting(name, value, f"{address}/v1/models: {key}")


def _of_info(name: str, info: Mapping[str, Any]) -> Settings:
    config, variables, host = (
        part if isinstance(part := info.get(key), dict) else {}
        for key in ("vllm_config", "vllm_env", "system_env")
    )
    document = Document(name, "", config)
    known = settings_of(leaves(config), _INFO_KEYS, document)
    device = config.get("device_config")
    kind = device.get("device") if isinstance(device, dict) else None
    if isinstance(kind, str):
        where = document.where("device_config.device")
        known += Settings((Setting("machine.device", kind.lower(), where),))
    known += Settings(
        tuple(
            Setting(setting, True, document.where(section))
            for section, setting in _SECTIONS.items()
            if config.get(section)
        )
    )
    written = {
        str(key): str(value)
        for key, value in variables.items()
        if kind == "cpu" or not str(key).startswith(_CPU_ONLY)
    }
    packages, gpus = host.get("pip_packages"), host.get("nvidia_gpu_models")
    lines = "\n".join(str(part) for part in (packages, gpus) if part)
    return known + environment_settings(written, name) + Environment().read(Document(name, lines))


def _ask(address: str, path: str, timeout_s: float) -> dict[str, Any] | None:
    """The JSON object; None for a path that the server does not have. Follows no redirection."""
    parts = urlsplit(address)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise RequestError(
            f"{address} is no address of a server: {error}.",
            remedy="give it as http://HOST:PORT.",
        ) from error
    connection = (
        http.client.HTTPSConnection(host, port, timeout=timeout_s)
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=timeout_s)
    )
    try:
        connection.request("GET", parts.path + path, headers={"Accept": "application/json"})
        with connection.getresponse() as answer:
            raw = answer.read(LARGEST + 1)
    except TimeoutError as error:
        raise EngineError(
            f"{address}{path} did not answer in {timeout_s:g} s.",
            remedy="ask again: the first answer of a busy server takes longer.",
        ) from error
    except (OSError, http.client.HTTPException, ssl.SSLError) as error:
        raise EngineError(
            f"{address}{path} cannot be asked: {error or type(error).__name__}.",
            remedy="check that the vLLM server runs there and is ready.",
        ) from error
    finally:
        connection.close()
    if answer.status == http.client.NOT_FOUND:
        return None
    return _object(f"{address}{path}", answer.status, raw)


def _object(asked: str, status: int, raw: bytes) -> dict[str, Any]:
    if status != http.client.OK or len(raw) > LARGEST:
        raise EngineError(
            f"{asked} answered {status} ({len(raw):,} bytes).",
            remedy="check that it is a vLLM server that asks for no key; else give its arguments "
            "as a file.",
        )
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise EngineError(
            f"{asked} answered with something that is not JSON.",
            remedy="check that it is the address of a vLLM server.",
        ) from error
    return value if isinstance(value, dict) else {}
