"""Which form a folder of tensors has, and its reader."""

from __future__ import annotations

from pathlib import Path

from driftscope_probes.errors import RequestError
from driftscope_probes.explain.dumps.base import RawDump
from driftscope_probes.explain.dumps.files import files_of
from driftscope_probes.explain.dumps.msprobe_dump import is_msprobe, read_msprobe
from driftscope_probes.explain.dumps.pickled_dump import PICKLED, refuse_pickled
from driftscope_probes.explain.dumps.safetensors_dump import read_safetensors


def read_dump(folder: Path) -> RawDump:
    """Raises RequestError: no folder, no form that is known, pickled tensors, damaged files."""
    files = files_of(folder)
    by_suffix: dict[str, list[Path]] = {}
    for path in files:
        by_suffix.setdefault(path.suffix, []).append(path)
    pickled = [path for suffix in PICKLED for path in by_suffix.get(suffix, [])]
    if ".safetensors" in by_suffix:
        return read_safetensors(folder, files)
    if is_msprobe(files) and (not pickled or ".npy" in by_suffix):
        return read_msprobe(folder, files)
    if pickled:
        raise refuse_pickled(folder, sorted(pickled))
    raise RequestError(
        f"{folder} holds no tensors of a form that is read here: {len(files)} files"
        + (f", such as {files[0].name}." if files else "."),
        remedy="give safetensors files (docs/capture.md has a function that writes them) or "
        "msprobe's dump.json with its numpy files.",
    )
