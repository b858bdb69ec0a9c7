"""A pushed step as JSON, read strictly: no duplicate keys, no NaN, limited depth and size."""

from __future__ import annotations

import json
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.push.column_names import AS_THEY_ARE, ColumnNames, missing
from driftscope_probes.push.conversion import ONE_FOR_ALL
from driftscope_probes.push.json_structure import MAX_MARKS, marks_beyond
from driftscope_probes.push.lengths import lengths_fault
from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_probes.push.rules import (
    MAX_JSON_BYTES,
    REQUIRED,
    RULES,
    PushError,
    checked_metadata,
)


def parse_object(raw: bytes, what: str) -> dict[str, Any]:
    """`what` names the document in the error."""
    value = parse(raw, what)
    if not isinstance(value, dict):
        raise PushError(
            f"{what} is a JSON {type(value).__name__}, accepted is an object.",
            remedy='write {"name": value, …}; docs/push-format.md shows one.',
        )
    return value


def parse_file(path: Path, what: str, *, if_too_large: str) -> Any:
    """Any JSON value, its names unique. if_too_large: what to do then."""
    with path.open("rb") as stream:
        raw = stream.read(MAX_JSON_BYTES + 1)
    if len(raw) > MAX_JSON_BYTES:
        raise PushError(
            f"it has more than {MAX_JSON_BYTES:,} bytes of JSON.", remedy=f"{if_too_large}."
        )
    return parse(raw, what)


def parse(raw: bytes, what: str) -> Any:
    """Any JSON value, its names unique."""
    marks = marks_beyond(raw)
    if marks is not None:
        raise PushError(
            f"{what} has {marks:,} lists, objects and names, accepted are {MAX_MARKS:,}.",
            remedy="give flat lists with cu_seqlens, or write it as safetensors.",
        )
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise PushError(
            f"{what} is not valid JSON: {_place(error)}"[:500],
            remedy="write it again with a JSON library, in UTF-8 and each name once.",
        ) from error


def _place(error: ValueError | RecursionError) -> str:
    """By character: a line within the value would be read as one of the file."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}."
    return str(error)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Readers differ in which of two equal names they keep: what was checked must be what is used.
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"the name {name[:80]!r} occurs twice")
        fields[name] = value
    return fields


#: JSON has no NaN: null represents a non-finite value, as prime-rl writes it.
NOT_FINITE: Final = None


def float_column(name: str, values: object) -> NDArray[np.float32]:
    """Numbers and null → float32 (nearest; null is NaN). Refuses what float32 cannot hold."""
    listed = _listed(name, values, (int, float, type(NOT_FINITE)))
    try:
        wide = np.array([np.nan if v is NOT_FINITE else v for v in listed], dtype=np.float64)
    except OverflowError as error:
        raise _unfit(name, "an integer is beyond float64") from error
    with np.errstate(over="ignore", under="ignore"):
        column = wide.astype(np.float32)
    changed = (np.isfinite(wide) != np.isfinite(column)) & ~np.isnan(wide)
    changed |= (wide != 0) & (column == 0)
    if changed.any():
        index = int(np.argmax(changed))
        raise _unfit(name, f"value {wide[index]} at {index} is outside the range of float32")
    return column


def integer_column(
    name: str, values: object, dtype: type[np.int32] | type[np.int64]
) -> NDArray[Any]:
    listed = _listed(name, values, (int,))
    try:
        wide = np.array(listed, dtype=np.int64)
    except OverflowError as error:
        raise _unfit(name, "an integer is beyond 64 bits") from error
    limits = np.iinfo(dtype)
    outside = (wide < limits.min) | (wide > limits.max)
    if outside.any():
        index = int(np.argmax(outside))
        raise _unfit(name, f"{wide[index]} at {index} is outside {limits.bits}-bit integers")
    return wide.astype(dtype)


def mask_column(name: str, values: object) -> NDArray[np.bool_]:
    """true and false, or 1 and 0, also as 1.0 and 0.0: many frameworks keep masks as floats."""
    listed = _listed(name, values, (bool, int, float))
    for index, value in enumerate(listed):
        if value not in (0, 1):
            raise _unfit(name, f"a value at {index} is neither 0 nor 1")
    return np.array(listed, dtype=np.bool_)


def _listed(name: str, values: object, kinds: tuple[type, ...]) -> list[Any]:
    if not isinstance(values, list):
        raise _unfit(name, f"it is a JSON {type(values).__name__}, not a list")
    for index, value in enumerate(values):
        # type(), because True is an int to isinstance().
        if type(value) not in kinds:
            accepted = ", ".join(kind.__name__ for kind in kinds)
            shown = f" ({value[:40]!r})" if isinstance(value, str) else ""
            raise _unfit(
                name, f"{type(value).__name__} at {index}{shown}, accepted: {accepted}", value
            )
    return values


def _unfit(name: str, why: str, value: object = None) -> PushError:
    remedy = f"give {name} as docs/push-format.md describes it."
    if isinstance(value, str):
        remedy = "write numbers rather than text: float(value), with null for what is not finite."
    return PushError(f"{name} cannot be read: {why}.", remedy=remedy)


METADATA = "metadata"
COLUMNS = tuple(name for name, rule in RULES.items() if not rule.inner_dimensions)


def step_of_object(given: dict[str, Any], columns: ColumnNames = AS_THEY_ARE) -> PushedStep:
    """One object with a list per sequence, or flat lists and cu_seqlens. Raises PushError."""
    metadata = checked_metadata(given.pop(METADATA, {}))
    chosen = columns.chosen(given, COLUMNS, "there is a field")
    fields = {ours: given[theirs] for ours, theirs in chosen.items()}
    if columns.side is not None and "cu_seqlens" not in fields:
        fields |= {name: as_rows(fields[name]) for name in REQUIRED}
    for name in REQUIRED:
        if name not in fields:
            raise missing(name, "one value per token")
    flat = fields if "cu_seqlens" in fields else _flattened(fields)
    return pushed_step({name: _column(name, values) for name, values in flat.items()}, metadata)


def as_rows(values: object) -> object:
    """One list of numbers is one sequence."""
    flat = isinstance(values, list) and not any(isinstance(one, list) for one in values)
    return [values] if flat else values


def _flattened(fields: dict[str, Any]) -> dict[str, Any]:
    """One list per sequence → flat lists and cu_seqlens; every column must be cut the same way."""
    lengths = _lengths(REQUIRED[0], fields[REQUIRED[0]])
    flat: dict[str, Any] = {"cu_seqlens": [0, *accumulate(lengths)]}
    for name, values in fields.items():
        either = name in ONE_FOR_ALL or RULES[name].per == "sequence"
        if either and not (isinstance(values, list) and any(isinstance(v, list) for v in values)):
            flat[name] = values
            continue
        own = _lengths(name, values)
        if RULES[name].per == "prompt":
            flat.setdefault("prompt_lengths", fields.get("prompt_lengths", own))
            flat[name] = list(chain.from_iterable(values))
            continue
        once = name in ONE_FOR_ALL and set(own) == {1} and len(own) == len(lengths)
        fault = None if once else lengths_fault(name, own, REQUIRED[0], lengths)
        if fault is not None:
            raise PushError(fault.message, remedy=fault.remedy)
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
