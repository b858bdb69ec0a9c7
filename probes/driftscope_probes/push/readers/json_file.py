"""A JSON file → PushedStep: one object with columns, or a list with one record per sequence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from driftscope_probes.push.column_names import AS_THEY_ARE, EITHER, ColumnNames
from driftscope_probes.push.json_step import parse_file, step_of_object
from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.push.readers.records import step_of_records
from driftscope_probes.push.readers.refused import not_a_step
from driftscope_probes.push.rules import PushError

#: What a list of one side, which has no name, counts as.
ANY_NAME: Final = EITHER[0]


def read_json_step(path: Path, columns: ColumnNames = AS_THEY_ARE) -> PushedStep:
    large = "write large steps as safetensors, a tenth of the size"
    value = parse_file(path, "the step", if_too_large=large)
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, Mapping) and (other := not_a_step(first)):
        raise other
    if columns.side is not None and not isinstance(first, Mapping):
        value = {ANY_NAME: value}  # a bare list: of tokens, or one list per sequence
    if isinstance(value, dict):
        return step_of_object(value, columns)
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        records = ((f"record {index}", one) for index, one in enumerate(value))
        return step_of_records(records, columns)
    raise PushError(
        f"the step is a JSON {type(value).__name__}, accepted is an object, or a list of objects.",
        remedy='write {"name": value, …}; docs/push-format.md shows one.',
    )
