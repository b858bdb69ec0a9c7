"""The API against the one that programs were written for: what would break them is named."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.service.openapi_changes import breaking_changes

ROOT = Path(__file__).parents[2]
#: The document of the last release; a release replaces it.
RELEASED = Path(__file__).with_name("openapi.released.json")
COMMITTED = ROOT / "docs" / "openapi.json"
#: Breaks that are meant, each with its reason.
MEANT: dict[str, str] = {}


def document(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def test_nothing_breaks_since_the_release_but_what_is_meant() -> None:
    found = breaking_changes(document(RELEASED), document(COMMITTED))
    assert [change for change in found if change not in MEANT] == []
    assert set(MEANT) <= set(found), "a break that is listed is none"


Change = Callable[[dict[str, Any]], Any]
RUN, JOB = "/v1/runs/{run}", "/v1/jobs/{job_id}"


def body(new: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = new["components"]["schemas"]["KernelsProbeRequest"]
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda new: new["paths"].pop(RUN), f"{RUN} is gone"),
        (lambda new: new["paths"][JOB].pop("delete"), f"DELETE {JOB} is gone"),
        (
            lambda new: new["components"]["schemas"]["JobBody"]["properties"].pop("state"),
            f"GET {JOB}: 200.state is gone",
        ),
        (
            lambda new: body(new)["properties"]["seed"].update(maximum=10),
            "POST /v1/probes/kernels: body.seed: maximum is 10 now",
        ),
        (
            lambda new: body(new).update(required=["seed"]),
            "POST /v1/probes/kernels: body.seed is required now",
        ),
        (
            lambda new: body(new)["properties"]["seed"].update(type="string"),
            "POST /v1/probes/kernels: body.seed is string, it was integer",
        ),
        (
            lambda new: new["paths"]["/v1/jobs"]["get"]["parameters"].append(
                {"in": "query", "name": "who", "required": True, "schema": {"type": "string"}}
            ),
            "GET /v1/jobs: query parameter who is required now",
        ),
    ],
)
def test_a_planted_break_is_named(change: Change, said: str) -> None:
    old = document(COMMITTED)
    new = copy.deepcopy(old)
    change(new)
    assert any(said in found for found in breaking_changes(old, new))


def test_more_that_is_accepted_and_more_that_is_answered_breaks_nothing() -> None:
    old = document(COMMITTED)
    new = copy.deepcopy(old)
    schemas = new["components"]["schemas"]
    schemas["JobBody"]["properties"]["more"] = {"type": "array"}
    body(new)["properties"]["more"] = {"type": "integer"}
    new["paths"]["/v1/more"] = {"get": {"responses": {}}}
    assert breaking_changes(old, new) == []
