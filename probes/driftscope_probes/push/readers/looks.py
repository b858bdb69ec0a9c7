"""What a file looks like whose columns are not known: names, kinds, lengths and first values.

In: a path. Out: lines for a message, and the mapping that its names suggest. Read is as much as one
record needs; what cannot be read is left out: the reason why the file was refused is said already.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from driftscope_probes.errors import ProbeError
from driftscope_probes.push.column_names import COLUMN_OF
from driftscope_probes.push.json_step import parse, parse_object
from driftscope_probes.push.readers.base import Opening
from driftscope_probes.push.rules import MAX_HEADER_BYTES, MAX_JSON_BYTES, STORED_AS
from driftscope_probes.push.safetensors_step import LENGTH_BYTES

MAX_LOOKS: Final = 24
MAX_VALUES: Final = 3
MAX_TEXT: Final = 24
MAX_NAME: Final = 60
#: A table's row may be a long response.
ROWS_LOOKED_AT: Final = 1
SUGGESTS: Final[Mapping[str, tuple[str, ...]]] = {
    "rollout_logprobs": ("roll", "gen", "infer", "sampl", "behav", "engine", "vllm", "sglang"),
    "trainer_logprobs": ("train", "old", "prev", "policy", "actor", "learner", "hf", "prox"),
}
LOGPROBS: Final = ("logp", "log_p", "lp")


@dataclass(frozen=True, slots=True)
class Look:
    name: str
    kind: str  # dtype and shape, or what JSON has
    values: Sequence[Any]  # the first ones

    @property
    def text(self) -> str:
        first = ", ".join(_short(value) for value in list(self.values)[:MAX_VALUES])
        return (
            f"  {self.name[:MAX_NAME]}: {self.kind[:MAX_NAME]}{', first ' if first else ''}{first}"
        )

    @property
    def logprobs(self) -> bool:
        """Whether it may hold some: numbers that are finite, and none above 0."""
        numbers = [v for v in self.values if isinstance(v, float | np.floating)]
        return bool(numbers) and all(math.isfinite(v) and v <= 0 for v in numbers)


def looks_of(path: Path) -> list[Look]:
    """None where the file is not of a kind that has names."""
    try:
        return _looks(Opening.of(path))[:MAX_LOOKS]
    except (ProbeError, OSError, ValueError, KeyError, TypeError):
        return []


def described(looks: Sequence[Look]) -> str:
    return "\n".join(["It holds:", *(one.text for one in looks)]) if looks else ""


def suggested(looks: Sequence[Look]) -> str | None:
    """--columns …, where exactly one column looks like each side by its name and values."""
    found = {}
    for ours, hints in SUGGESTS.items():
        others = [h for side in SUGGESTS if side != ours for h in SUGGESTS[side]]
        named = [
            one.name
            for one in looks
            if one.logprobs
            and any(hint in one.name.lower() for hint in hints)
            and any(word in one.name.lower() for word in LOGPROBS)
            and not any(hint in one.name.lower() for hint in others)
        ]
        if len(named) == 1:
            found[ours] = named[0]
    if found.keys() != set(COLUMN_OF.values()):
        return None
    return "--columns " + ",".join(f"{ours}={theirs}" for ours, theirs in found.items())


def _looks(file: Opening) -> list[Look]:
    if file.safetensors:
        return _of_safetensors(file)
    if file.members:
        return _of_npz(file.path)
    if file.head.startswith(b"PAR1"):
        return _of_parquet(file.path)
    if file.head.startswith(b"\xff\xff\xff\xff"):
        return _of_arrow(file.path)
    if file.first_line is not None:
        return [_of_json(name, value) for name, value in file.first_line.items()]
    if file.json and file.path.stat().st_size <= MAX_JSON_BYTES:
        value = parse(file.path.read_bytes(), "the document")
        first = value[0] if isinstance(value, list) and value else value
        return [_of_json(n, v) for n, v in first.items()] if isinstance(first, dict) else []
    if file.first_row is not None:
        return _of_table(*file.first_row, file.head.decode("utf-8", "replace").splitlines())
    return []


def _of_table(names: Sequence[str], delimiter: str, lines: Sequence[str]) -> list[Look]:
    below: list[Any] = [*lines[1].split(delimiter)] if len(lines) > 1 else []
    for index, cell in enumerate(below):
        with suppress(ValueError):
            below[index] = float(cell)
    return [Look(name, "column", below[at : at + 1]) for at, name in enumerate(names)]


def _of_json(name: str, value: Any) -> Look:
    if not isinstance(value, list):
        return Look(name, type(value).__name__, [value])
    if value and isinstance(value[0], list):
        inner = value[0]
        return Look(name, f"{len(value)} lists, the first of {len(inner)}", inner[:MAX_VALUES])
    return Look(name, f"list of {len(value)}", value[:MAX_VALUES])


def _of_safetensors(file: Opening) -> list[Look]:
    with file.path.open("rb") as stream:
        length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
        header = parse_object(stream.read(length), "the safetensors header")
        header.pop("__metadata__", None)
        found = []
        for name, entry in header.items():
            dtype, begin = str(entry["dtype"]), int(entry["data_offsets"][0])
            stored = STORED_AS.get(dtype) if dtype != "BF16" else None
            stream.seek(LENGTH_BYTES + length + begin)
            count = min(MAX_VALUES, math.prod(entry["shape"]))
            raw = stream.read(0 if stored is None else count * stored.itemsize)
            values = [] if stored is None else np.frombuffer(raw, stored).tolist()
            found.append(Look(name, f"{dtype} {entry['shape']}", values))
    return found


def _of_npz(path: Path) -> list[Look]:
    from driftscope_probes.push.readers.npz import headers_of

    return [
        Look(name, f"{header.dtype} {list(header.shape)}", first)
        for name, header, first in headers_of(path, MAX_VALUES)
    ]


def _of_parquet(path: Path) -> list[Look]:
    import pyarrow.parquet as pq

    limits = {
        "thrift_string_size_limit": MAX_HEADER_BYTES,
        "thrift_container_size_limit": MAX_HEADER_BYTES,
    }
    with pq.ParquetFile(path, **limits) as file:
        batch = next(file.iter_batches(ROWS_LOOKED_AT, use_threads=False), None)
        return _of_batch(file.schema_arrow, batch)


def _of_arrow(path: Path) -> list[Look]:
    import pyarrow as pa

    with pa.OSFile(str(path), "rb") as source, pa.ipc.open_stream(source) as reader:
        return _of_batch(reader.schema, None)


def _of_batch(schema: Any, batch: Any) -> list[Look]:
    found = []
    for index, field in enumerate(schema):
        value = batch.column(index)[0].as_py() if batch is not None and len(batch) else None
        values = value[:MAX_VALUES] if isinstance(value, list) else [] if value is None else [value]
        size = f" of {len(value)}" if isinstance(value, list) else ""
        found.append(Look(field.name, f"{field.type}{size}", values))
    return found


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else repr(value)
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
