"""A small step as JSON → PushedStep: the tensors' names, one list per sequence or flat lists.

In: a path. Out: PushedStep, or PushError. Routed experts are read from safetensors only.
"""

from __future__ import annotations

from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_probes.push.rules import (
    MAX_JSON_BYTES,
    REQUIRED,
    RULES,
    PushError,
    checked_metadata,
)
from driftscope_probes.push.strict_json import (
    float_column,
    integer_column,
    mask_column,
    parse_object,
)

METADATA = "metadata"
COLUMNS = tuple(name for name, rule in RULES.items() if not rule.inner_dimensions)


def read_json_step(path: Path) -> PushedStep:
    with path.open("rb") as stream:
        raw = stream.read(MAX_JSON_BYTES + 1)
    if len(raw) > MAX_JSON_BYTES:
        raise PushError(
            f"it has more than {MAX_JSON_BYTES:,} bytes of JSON.",
            remedy="write large steps as safetensors, a tenth of the size.",
        )
    fields = parse_object(raw, "the step")
    metadata = checked_metadata(fields.pop(METADATA, {}))
    unknown = [name for name in fields if name not in COLUMNS]
    if unknown:
        raise PushError(
            f"there is a field {unknown[0][:80]!r}; accepted are {', '.join(COLUMNS)} and "
            f"{METADATA}.",
            remedy="rename or drop it; docs/push-format.md says what each field holds.",
        )
    for name in REQUIRED:
        if name not in fields:
            raise PushError(f"there is no {name}.", remedy=f"add {name}: one value per token.")
    flat = fields if "cu_seqlens" in fields else _flattened(fields)
    return pushed_step({name: _column(name, values) for name, values in flat.items()}, metadata)


def _flattened(fields: dict[str, Any]) -> dict[str, Any]:
    """One list per sequence → flat lists and cu_seqlens; every column must be cut the same way."""
    lengths = _lengths(REQUIRED[0], fields[REQUIRED[0]])
    flat: dict[str, Any] = {"cu_seqlens": [0, *accumulate(lengths)]}
    for name, values in fields.items():
        if RULES[name].per != "token":
            flat[name] = values
            continue
        own = _lengths(name, values)
        if own != lengths:
            raise PushError(
                f"{name} is cut into sequences of other lengths than {REQUIRED[0]}.",
                remedy=f"give {name} one value per token of every sequence.",
            )
        flat[name] = list(chain.from_iterable(values))
    return flat


def _lengths(name: str, values: object) -> list[int]:
    if not isinstance(values, list) or not all(isinstance(one, list) for one in values):
        raise PushError(
            f"there is no cu_seqlens, and {name} is not a list of lists.",
            remedy="give one list per sequence, or flat lists with cu_seqlens.",
        )
    return [len(one) for one in values]


def _column(name: str, values: object) -> NDArray[Any]:
    if name == "mask":
        return mask_column(name, values)
    dtype = RULES[name].dtypes[0]
    if dtype == "F32":
        return float_column(name, values)
    return integer_column(name, values, np.int64 if name == "cu_seqlens" else np.int32)
