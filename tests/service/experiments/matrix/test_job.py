"""A matrix probe asked for over HTTP: clients name places, the operator defines them."""

from __future__ import annotations

from typing import Any

import pytest

from driftscope_probes.matrix.places.base import LocalDefinition
from driftscope_probes.matrix.run import chosen_places
from driftscope_service.experiments.matrix.job import MatrixProbeRequest, probe_request
from driftscope_service.http.errors import InvalidField
from driftscope_service.settings import SettingsError, load_settings

PLACES = '{"sse": {"variables": {"ONEDNN_MAX_CPU_ISA": "SSE41"}}, "old": "/opt/old/bin/python"}'


@pytest.fixture(autouse=True)
def operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTSCOPE_MATRIX_PLACES", PLACES)


def asked(**request: Any) -> dict[str, Any]:
    settings = load_settings()
    return probe_request(MatrixProbeRequest(model="tiny-random-llama", **request), settings)


def test_the_operator_s_places_go_into_the_job() -> None:
    job = asked()
    known = {name: LocalDefinition.model_validate(one) for name, one in job["places"].items()}
    places = chosen_places(MatrixProbeRequest(**job["request"]), known, job["ray_address"])
    assert [place.name for place in places] == ["here", "sse", "old"]
    assert dict(places[1].variables) == {"ONEDNN_MAX_CPU_ISA": "SSE41"}
    assert str(known["old"].python) == "/opt/old/bin/python"


@pytest.mark.parametrize(
    ("request_", "field", "told"),
    [
        ({"places": ["here", "avx"]}, "/places/1", "'avx'"),
        ({"places": ["/usr/bin/python3"]}, "/places/0", "there is no place"),
        ({"places": ["here"]}, "/places", "compared with nothing"),
        ({"ray": "each"}, "/ray", "knows no Ray cluster"),
        ({"threads": 1000}, "/threads", "allows"),
        ({"prompts": 256, "max_tokens": 128}, "/max_tokens", "at 3 places"),
    ],
)
def test_what_a_client_may_not_ask(request_: dict[str, Any], field: str, told: str) -> None:
    with pytest.raises(InvalidField) as caught:
        asked(**request_)
    (error,) = caught.value.extras["errors"]
    assert error["pointer"] == field and told in error["message"]


@pytest.mark.parametrize(
    "places",
    [
        '{"here": "/usr/bin/python3"}',
        '{"a b": "/usr/bin/python3"}',
        '{"sse": "python3"}',
        '{"sse": {"variables": {"PATH": "/tmp"}}}',
        '["sse"]',
    ],
)
def test_places_that_an_operator_may_not_define(
    places: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTSCOPE_MATRIX_PLACES", places)
    with pytest.raises(SettingsError):
        load_settings()
