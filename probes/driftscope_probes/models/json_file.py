"""Reads a small JSON object from disk with a size limit; writes one the same way every time.

In: a path. Out: the object, or a ModelError that names the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftscope_probes.errors import ModelError


def read_json(path: Path, limit: int) -> dict[str, Any]:
    """The JSON object in `path`; raises ModelError if it is larger than `limit` bytes or broken."""
    with path.open("rb") as stream:
        raw = stream.read(limit + 1)
    if len(raw) > limit:
        raise ModelError(
            f"{path} is larger than {limit:,} bytes, the limit for this file.",
            remedy="Check that it is the model's own file; published ones are far smaller.",
        )
    return parse_object(raw, str(path))


def parse_object(raw: bytes, what: str) -> dict[str, Any]:
    """`raw` as a JSON object; `what` names it in the error."""
    try:
        value = json.loads(raw)
    # A deeply nested document exhausts the parser's recursion before it is found to be wrong.
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{what} is not valid JSON: {error}.",
            remedy="Copy or download the model again; the file is damaged or incomplete.",
        ) from error
    if not isinstance(value, dict):
        raise ModelError(
            f"{what} holds a JSON {type(value).__name__}, an object is needed.",
            remedy="Copy or download the model again; the file is not what its name says.",
        )
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """The same value gives the same bytes."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
