"""Builds the C++ sources at first use and loads them as torch operators.

In: csrc/, the compiler that CXX names (else c++). Out: `library()`, the operator namespace. The
result is kept in $DRIFTSCOPE_HOME/kernels/<key>, else ~/.cache/driftscope/kernels/<key>; the key
covers the sources, the flags, torch and the compiler.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

SOURCES = Path(__file__).parent.parent / "csrc"
LIBRARY = "driftscope_cpu"  # also the namespace of the operators
# The same as driftscope_probes.models.cache, which kernels may not import.
HOME_VARIABLE = "DRIFTSCOPE_HOME"
# Fused multiply-adds are written out where the contract has them; the compiler may form no others.
# The two warnings are about GCC 12's own intrinsics (GCC bug 105593).
FLAGS = ("-O3", "-ffp-contract=off", "-Wno-uninitialized", "-Wno-maybe-uninitialized")
# How long to wait for another process that builds the same sources: some ten times a build.
LOCK_SECONDS = 300.0
LOG, RECORD = "build.log", "built.json"
LOG_TAIL_CHARACTERS = 1500


class ToolchainMissingError(RuntimeError):
    """What a build needs is not installed."""


class BuildError(RuntimeError):
    """The compiler refused, or what it made cannot be loaded."""


@dataclass(frozen=True, slots=True)
class Built:
    """One finished build."""

    path: Path  # the shared library
    seconds: float  # what the build took; of an earlier process if it was in the cache


@cache
def library() -> Any:
    """torch.ops.driftscope_cpu, built first if need be."""
    load(built(SOURCES, cache_folder()).path)
    return torch.ops.driftscope_cpu


def cache_folder() -> Path:
    """The folder with one folder per build."""
    given = os.environ.get(HOME_VARIABLE)
    home = Path(given).expanduser() if given else Path.home() / ".cache" / "driftscope"
    return home.absolute() / "kernels"


def built(sources: Path, folder: Path) -> Built:
    """The library of all *.cpp in `sources`: from `folder` if it is there, else built into it."""
    compiler = _compiler()
    place = folder / _key(sources, compiler)
    if not (place / RECORD).is_file():
        _build_once(sources, place, compiler)
    record = json.loads((place / RECORD).read_text())
    return Built(place / record["library"], record["seconds"])


def load(path: Path) -> None:
    """Make the operators of a shared library known to torch."""
    try:
        torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
    except OSError as error:
        raise BuildError(
            f"cannot load {path}: {error}. Delete the folder {path.parent} to build it again."
        ) from error


def _compiler() -> str:
    name = os.environ.get("CXX", "c++")
    found = shutil.which(name)
    if found is None:
        raise ToolchainMissingError(
            f"no C++ compiler: {name!r} is not on PATH. Install g++ or clang++ (Debian: "
            "apt-get install g++), or name one in CXX."
        )
    return found


def _key(sources: Path, compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    parts = [torch.__version__, version.stdout, *FLAGS]
    for path in sorted(sources.rglob("*")):
        if path.suffix in (".cpp", ".h"):
            parts += [path.relative_to(sources).as_posix(), path.read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _build_once(sources: Path, place: Path, compiler: str) -> None:
    """Build under a lock, so that processes that start together build once."""
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(
            f"cannot create {place}: {error.strerror}. Set {HOME_VARIABLE} to a folder "
            "that you can write to."
        ) from error
    try:
        with FileLock(place / "build.lock", timeout=LOCK_SECONDS):
            if not (place / RECORD).is_file():
                _build(sources, place, compiler)
    except Timeout as error:
        raise BuildError(
            f"waited {LOCK_SECONDS:.0f} s for another process that builds in {place}. If there is "
            "none, delete that folder."
        ) from error


def _build(sources: Path, place: Path, compiler: str) -> None:
    begin = time.perf_counter()
    library = place / f"{LIBRARY}.so"
    units = sorted(sources.rglob("*.cpp"))
    # Every folder has a scalar.cpp: the folder is part of the object's name.
    objects = [
        place / "_".join(path.relative_to(sources).with_suffix(".o").parts) for path in units
    ]
    _write_ninja_file(sources, units, objects, library, compiler)
    _run_ninja(place)
    for path in objects:
        path.unlink(missing_ok=True)
    record = {"library": library.name, "seconds": round(time.perf_counter() - begin, 2)}
    # The record is what makes a build complete: written whole or not at all.
    (place / "record.part").write_text(json.dumps(record))
    os.replace(place / "record.part", place / RECORD)


def _write_ninja_file(
    sources: Path,
    units: Sequence[Path],
    objects: Sequence[Path],
    library: Path,
    compiler: str,
) -> None:
    try:
        from torch.utils import cpp_extension
    except ImportError as error:
        raise ToolchainMissingError(
            f"torch.utils.cpp_extension lacks a package: {error}. Install setuptools."
        ) from error
    if not cpp_extension.is_ninja_available():
        raise ToolchainMissingError("no ninja on PATH. Install it: pip install ninja")
    includes = " ".join(f"-isystem {_word(path)}" for path in cpp_extension.include_paths())
    # torch links its own OpenMP library; at::parallel_for in our sources must find that one, so
    # -fopenmp is for the compiler alone and the linker is not told.
    # -iquote, not -I: our headers must not shadow torch's.
    own = f"-iquote {_word(str(sources))}"
    compile_flags = f"-std=c++20 -fPIC -fopenmp {' '.join(FLAGS)} {own} {includes}"
    folders = [_word(path) for path in cpp_extension.library_paths()]
    links = " ".join(f"-L{path} -Wl,-rpath,{path}" for path in folders)
    lines = [
        "rule compile",
        f"  command = {_word(compiler)} {compile_flags} -c $in -o $out",
        "rule link",
        f"  command = {_word(compiler)} -shared $in -o $out {links} -ltorch_cpu -lc10",
        *(
            f"build {made.name}: compile {_escaped(str(source))}"
            for made, source in zip(objects, units, strict=True)
        ),
        f"build {library.name}: link {' '.join(made.name for made in objects)}",
        "",
    ]
    (library.parent / "build.ninja").write_text("\n".join(lines))


def _word(path: str) -> str:
    """One word of a command in a ninja file."""
    return shlex.quote(path).replace("$", "$$")


def _escaped(path: str) -> str:
    """A path in a build line of a ninja file."""
    return re.sub(r"([$ :])", r"$\1", path)


def _run_ninja(place: Path) -> None:
    done = subprocess.run(
        ["ninja", "-C", str(place)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    (place / LOG).write_text(done.stdout)
    if done.returncode:
        raise BuildError(
            f"the C++ kernels did not compile; the whole log is {place / LOG}. Fix the cause, or "
            "go without a compiler: DRIFTSCOPE_KERNELS=portable. The log ends:\n"
            + done.stdout[-LOG_TAIL_CHARACTERS:]
        )
