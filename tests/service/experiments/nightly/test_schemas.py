"""A night handed in: what the command prints is accepted as it is, what it never prints is not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from driftscope_service.demo import load
from driftscope_service.experiments.nightly.api import REQUIRED, NightlyResultBody
from driftscope_service.experiments.nightly.kind import KIND

NIGHT = load.recorded_report(KIND, KIND.recordings[-1])


@pytest.mark.parametrize("name", KIND.recordings)
def test_a_night_is_kept_with_its_times_in_utc_marked_z(name: str) -> None:
    night = load.recorded_report(KIND, name)
    times = {key: night[key].replace("+00:00", "Z") for key in ("started_at", "finished_at")}
    assert NightlyResultBody.model_validate(night).to_dict() == night | times


@pytest.mark.parametrize("name", REQUIRED)
def test_what_every_night_has_is_required(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        NightlyResultBody.model_validate({key: NIGHT[key] for key in NIGHT.keys() - {name}})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda night: night.update(started_at="2026-01-01T00:00:00"),  # no zone
        lambda night: night.update(resumed=-1),
        lambda night: night["config"].update(sha256="0" * 63),
        lambda night: night["items"][0].update(seconds=float("inf")),
        lambda night: night["items"][0].update(verdict="not_run", detail={}),  # and no reason
        lambda night: night["items"][0].update(id=""),
        lambda night: night.update(notes=[""] * 1001),
    ],
)
def test_a_spoilt_night_is_refused(spoil: Callable[[dict[str, Any]], None]) -> None:
    night = copy.deepcopy(NIGHT)
    spoil(night)
    with pytest.raises(ValidationError):
        NightlyResultBody.model_validate(night)
