"""Reports of the demo, which an older version wrote, through their types and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from driftscope_probes.determinism.report import DeterminismReport
from driftscope_probes.kernels.report import KernelsReport
from driftscope_probes.nightly.report import NightlyReport
from driftscope_probes.paired.report import PairedReport
from driftscope_probes.record import Record
from driftscope_service.demo import recordings

TYPES: dict[str, type[Record]] = {
    "determinism": DeterminismReport,
    "kernels": KernelsReport,
    "nightly-2": NightlyReport,
    "paired": PairedReport,
}


@pytest.fixture(params=TYPES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def written(report: dict[str, Any]) -> str:
    """Recordings are sorted; numbers and nulls as they are."""
    return json.dumps(report, sort_keys=True)


def test_a_stored_report_is_given_back_as_it_was(name: str) -> None:
    stored = recordings.report(name)
    assert written(TYPES[name].read(stored).to_dict()) == written(stored)


def test_what_another_version_added_stays_and_what_it_lacked_stays_absent(name: str) -> None:
    stored = {**recordings.report(name), "diagnosis": {"cause": None}}
    (rows,) = stored.keys() & {"axes", "verdicts", "items", "grid"}
    stored[rows][0]["later"] = 1.0
    stored.pop("engines", stored.pop("budget_s", None))
    assert written(TYPES[name].read(stored).to_dict()) == written(stored)


def test_what_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        TYPES[name].read({**recordings.report(name), "environment": None})
