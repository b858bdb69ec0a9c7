"""Reports of the demo, which an older version wrote, through their types and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from driftscope_service.demo import load
from driftscope_service.experiments.kind import Kind
from driftscope_service.experiments.registry import load_kinds

RECORDED = [(kind, name) for kind in load_kinds().values() for name in kind.recordings]
each_recording = pytest.mark.parametrize(("kind", "name"), RECORDED, ids=[n for _, n in RECORDED])


def written(report: dict[str, Any]) -> str:
    """Recordings are sorted; numbers and nulls as they are."""
    return json.dumps(report, sort_keys=True)


@each_recording
def test_a_stored_report_is_given_back_as_it_was(kind: Kind, name: str) -> None:
    stored = load.recorded_report(kind, name)
    assert written(kind.read(stored).to_dict()) == written(stored)


@each_recording
def test_what_another_version_added_stays_and_what_it_lacked_stays_absent(
    kind: Kind, name: str
) -> None:
    stored = {**load.recorded_report(kind, name), "later": {"cause": None}}
    tables = {"axes", "verdicts", "items", "grid", "pairs", "steps", "ops", "subjects"}
    (rows,) = stored.keys() & tables
    stored[rows][0]["later"] = 1.0
    for left_out in ("engines", "budget_s"):
        stored.pop(left_out, None)
    assert written(kind.read(stored).to_dict()) == written(stored)


@each_recording
def test_a_request_with_a_field_of_a_later_version_is_read(kind: Kind, name: str) -> None:
    stored = load.recorded_report(kind, name)
    if "request" in stored:
        assert kind.read({**stored, "request": {**stored["request"], "later": 1}})


@each_recording
def test_what_is_none_is_refused(kind: Kind, name: str) -> None:
    with pytest.raises(ValidationError):
        kind.read({**load.recorded_report(kind, name), "environment": None})
