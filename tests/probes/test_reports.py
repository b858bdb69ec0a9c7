"""Reports of the demo, which an older version wrote, through their types and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from driftscope_probes.determinism.report import DeterminismReport
from driftscope_probes.kernels.report import KernelsReport
from driftscope_probes.record import Record
from driftscope_service.demo import recordings

TYPES: dict[str, type[Record]] = {
    "determinism": DeterminismReport,
    "kernels": KernelsReport,
}


@pytest.fixture(params=TYPES)
def stored(request: pytest.FixtureRequest) -> dict[str, Any]:
    report: dict[str, Any] = recordings.report(request.param)
    return report


def written(report: dict[str, Any]) -> str:
    """Recordings are sorted; numbers and nulls as they are."""
    return json.dumps(report, sort_keys=True)


def test_a_stored_report_is_given_back_as_it_was(stored: dict[str, Any]) -> None:
    report = TYPES[stored["kind"]].read(stored)
    assert written(report.to_dict()) == written(stored)


def test_fields_of_another_version_stay_and_lacking_ones_stay_absent(
    stored: dict[str, Any],
) -> None:
    del stored["request"]["seed"]
    other = {**stored, "diagnosis": {"cause": None}}
    report = TYPES[stored["kind"]].read({**other, "request": {**stored["request"], "later": 1}})
    assert written(report.to_dict()) == written(other)
    with pytest.raises(ValidationError):
        TYPES[stored["kind"]].read({**stored, "created_at": None})
