"""Files of a job between the service's disk and that of a node.

To the node go the few files that a request names on the service's disk: floors, and of a night its
configuration and history. Back come what the probe changed there, and the files that its report
names. Contents travel as bytes, in chunks; names are checked before anything is written.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from driftscope_service.jobs.executors.ray.errors import TransferError

#: Of one message: far below what Ray keeps in its object store, far above its cost per message.
CHUNK_BYTES: Final = 4 << 20
#: A report of ten thousand items has about 20 MB.
MOST_REPORT_BYTES: Final = 256 << 20
#: All files that a report names: pairs of a grid have 20 bytes per token.
MOST_FILES_BYTES: Final = 16 << 30
#: Floors have under 1 KiB each, two months of nights about 20 MB each at the very most.
MOST_CARRIED_BYTES: Final = 2 << 30
#: Locks are of the machine that they were taken on.
LOCK_SUFFIX: Final = ".lock"
#: Where the probe works, in the folder of a job on a node; the other folders are carried ones.
WORK: Final = "work"


@dataclass(frozen=True, slots=True)
class Carried:
    """A file or folder of the service's disk that a request names."""

    name: str  # of its folder on the node
    keys: tuple[str, ...]  # where the request names it
    kind: str | None = None  # of the request; None: any


CARRIED: Final = (
    Carried("floors", ("floors",)),
    Carried("config", ("request", "config"), "nightly"),
    Carried("history", ("request", "history"), "nightly"),
)
#: Folders of models; they are too large to carry, and must be there.
MODEL_KEYS: Final = ("model_path", "trainer_model_path", "older_paths")


def pack(request: Mapping[str, Any]) -> dict[str, bytes]:
    """What the node needs of this disk: names, as `floors/one.json`, with contents."""
    contents: dict[str, bytes] = {}
    total = 0
    for carried, path in _named(request):
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if not file.is_file() or file.is_symlink() or file.name.endswith(LOCK_SUFFIX):
                continue
            total += file.stat().st_size
            if total > MOST_CARRIED_BYTES:
                raise _too_large(str(path), total, MOST_CARRIED_BYTES)
            within = file.name if path.is_file() else file.relative_to(path).as_posix()
            contents[f"{carried.name}/{within}"] = file.read_bytes()
    return contents


def unpack(
    request: Mapping[str, Any], contents: Mapping[str, bytes], folder: Path
) -> dict[str, Any]:
    """On the node: write `contents` into `folder`; the request that names them there."""
    for name, content in contents.items():
        path = inside(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    here = copy.deepcopy(dict(request))
    for carried, path in _named(request):
        holder = here
        for key in carried.keys[:-1]:
            holder = holder[key]
        single = f"{carried.name}/{path.name}"
        holder[carried.keys[-1]] = str(folder / (single if single in contents else carried.name))
    return here


def return_path(request: Mapping[str, Any], name: str) -> Path:
    """Where on the service's disk a carried file belongs that the probe has changed."""
    for carried, path in _named(request):
        start = carried.name + "/"
        if name.startswith(start) and not path.is_file():
            return inside(path, name.removeprefix(start))
    raise TransferError(
        f"the node hands over {name[:200]!r}, which the job does not write to.",
        remedy="check what runs on the nodes of the cluster.",
    )


def _named(request: Mapping[str, Any]) -> Iterator[tuple[Carried, Path]]:
    for carried in CARRIED:
        if carried.kind not in (None, request["kind"]):
            continue
        value: Any = request
        for key in carried.keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value:
            yield carried, Path(value)


def missing_models(request: Mapping[str, Any]) -> list[str]:
    """Of the model folders that a request names, those that are not on this machine."""
    paths: list[str | None] = []
    for key in MODEL_KEYS:
        value = request.get(key)
        paths += value if isinstance(value, list) else [value]
    return sorted({path for path in paths if path and not Path(path).is_dir()})


def inside(folder: Path, name: str) -> Path:
    """The path of `name` in `folder`; raises TransferError where it would leave it."""
    parts = PurePosixPath(name)
    wrong = parts.is_absolute() or not parts.parts or ".." in parts.parts or "\0" in name
    if wrong or not (folder / parts).resolve().is_relative_to(folder.resolve()):
        raise TransferError(
            f"the node names a file {name[:200]!r}, which is outside the folder of the job.",
            remedy="check what runs on the nodes of the cluster.",
        )
    return folder / parts


def files_named(report: Any, sizes: Mapping[str, int]) -> list[str]:
    """Those of the probe's files whose names stand in its report; raises where they are too many.

    Traces and results of its parts stay on the node: nobody reads them after the job.
    """
    said = set(_strings(report))
    names = [name for name in sorted(sizes) if name in said]
    total = sum(sizes[name] for name in names)
    if total > MOST_FILES_BYTES:
        raise _too_large("what the report names", total, MOST_FILES_BYTES)
    return names


def check_report_size(size: int) -> None:
    if size > MOST_REPORT_BYTES:
        raise _too_large("the report", size, MOST_REPORT_BYTES)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def _too_large(what: str, size: int, limit: int) -> TransferError:
    return TransferError(
        f"{what} has {size} bytes; at most {limit} go between the service and a node.",
        remedy="ask for less at once (prompts, tokens, dtypes), or run the job with the executor "
        "`local`.",
    )
