"""Compiles launches ahead of time for GPUs that need not be there, and reads what came out.

In: Launch records and the name of an architecture. Out: Binary: hash, registers, shared memory,
atomic and approximate instructions. Compiled kernels are kept in the driftscope cache folder.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature

from driftscope_kernels.cpu.build import cache_folder
from driftscope_kernels.triton_kernels.launch import Launch, interpreting

# Name → target and threads that step together.
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# Instructions that change memory in an order that no program fixes, in PTX and in AMD assembly.
ATOMICS = {
    "cuda": re.compile(r"\b(?:atom|red)\.[\w.:]+"),
    "hip": re.compile(
        r"\b(?:(?:global|flat|buffer|s)_atomic_\w+"
        r"|ds_(?:add|sub|rsub|inc|dec|min|max|and|or|xor|mskor|cmpst|wrxchg|pk_add)_\w+)"
    ),
}
# Results not rounded to nearest, or subnormal numbers lost: never asked for by the contract. (AMD
# expands an exact division into approximate steps, so only the exp and log instructions count.)
APPROXIMATE = {
    "cuda": re.compile(r"\b\w+(?:\.\w+)*\.(?:approx|ftz)\b[\w.]*|\bdiv\.full[\w.]*"),
    "hip": re.compile(r"\bv_(?:exp|log|sin|cos)_\w+"),
}
TEXT = {"cuda": "ptx", "hip": "amdgcn"}
CODE = {"cuda": "cubin", "hip": "hsaco"}
NVIDIA_USAGE = {"registers": r"REG:(\d+)", "stack_bytes": r"STACK:(\d+)"}
AMD_USAGE = {
    "registers": r"\.vgpr_count:\s+(\d+)",
    "stack_bytes": r"\.private_segment_fixed_size:\s*(\d+)",
}


class InterpreterError(RuntimeError):
    """A process that interprets kernels cannot compile them."""


@dataclass(frozen=True, slots=True)
class Binary:
    """One compiled kernel."""

    kernel: str
    arch: str
    sha256: str  # hash of the machine code
    registers: int  # per thread
    shared_bytes: int  # per program
    stack_bytes: int  # per thread: what did not fit in registers
    atomics: tuple[str, ...]
    approximate: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Specialisation:
    """What Triton tells binaries of one kernel apart by, as its launcher would."""

    launch: Launch
    arch: str
    key: str


@cache
def _binder(kernel: Any, arch: str) -> tuple[Any, Any]:
    backend = make_backend(TARGETS[arch])
    return backend, create_function_from_signature(kernel.signature, kernel.params, backend)


def specialisation(launch: Launch, arch: str) -> Specialisation:
    """The key of the binary that this launch would run."""
    if interpreting():
        raise InterpreterError(
            "TRITON_INTERPRET=1 is set, so kernels are interpreted in this process. Unset it to "
            "compile."
        )
    _, bind = _binder(launch.kernel, arch)
    _, specialised, options = bind(**launch.arguments, **launch.options)
    return Specialisation(launch, arch, f"{specialised} {sorted(options.items())}")


def compiled(one: Specialisation) -> Binary:
    """The binary of a specialisation, from the cache if it is there."""
    kernel, target = one.launch.kernel, TARGETS[one.arch]
    backend, bind = _binder(kernel, one.arch)
    bound, specialised, options = bind(**one.launch.arguments, **one.launch.options)
    parsed, signature, constants, attributes = kernel._pack_args(
        backend, dict(one.launch.options), bound, specialised, options
    )
    source = ASTSource(kernel, signature, constants, attributes)
    with knobs.cache.scope():
        knobs.cache.dir = str(cache_folder() / "triton")
        made = triton.compile(source, target=target, options=parsed.__dict__)
    text = made.asm[TEXT[target.backend]]
    return Binary(
        kernel=kernel.__name__,
        arch=one.arch,
        sha256=hashlib.sha256(made.asm[CODE[target.backend]]).hexdigest(),
        shared_bytes=made.metadata.shared,
        atomics=_found(ATOMICS[target.backend], text),
        approximate=_found(APPROXIMATE[target.backend], text),
        **_usage(made, target.backend),
    )


def _found(pattern: re.Pattern[str], text: str) -> tuple[str, ...]:
    return tuple(sorted(set(pattern.findall(_without_comments(text)))))


def _without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|;[^\n]*(?=\n)" if "amdgcn" in text[:200] else r"//[^\n]*", "", text)


def _usage(made: Any, backend: str) -> dict[str, int]:
    if backend == "hip":
        text, patterns = made.asm["amdgcn"], AMD_USAGE
    else:
        text, patterns = _resource_usage(made.asm["cubin"]), NVIDIA_USAGE
    found = {name: re.search(pattern, text) for name, pattern in patterns.items()}
    assert all(found.values()), text
    return {name: int(match[1]) for name, match in found.items() if match}


def _resource_usage(cubin: bytes) -> str:
    """What the bundled cuobjdump says of a cubin."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    folder = cache_folder() / "triton"
    path = folder / f"{hashlib.sha256(cubin).hexdigest()}.cubin"
    path.write_bytes(cubin)
    try:
        done = subprocess.run(
            [tool, "--dump-resource-usage", path], capture_output=True, text=True, check=True
        )
    finally:
        path.unlink()
    return done.stdout
