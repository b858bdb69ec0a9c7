"""What a browser is told with every answer, and whose word about TLS is taken."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from driftscope_service.app import create_app
from driftscope_service.http.security_headers import DEFAULTS

ALWAYS = (
    "content-security-policy",
    "x-frame-options",
    "referrer-policy",
    "permissions-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "x-content-type-options",
)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/healthz", {}),
        ("GET", "/runs", {"accept": "text/html"}),
        ("GET", "/v1/runs", {}),
        ("GET", "/static/none", {}),
        ("GET", "/none", {}),
        ("POST", "/v1/jobs", {}),
        ("GET", "/v1/jobs", {"host": "evil.example"}),
        ("GET", "/v1/jobs?a=%00", {}),
    ],
)
def test_every_answer_has_them(running: Any, method: str, path: str, headers: Any) -> None:
    answer = running.client.request(method, path, headers=headers)
    for name in ALWAYS:
        assert name in answer.headers, (path, name)
    assert set(ALWAYS) == {name.lower() for name in DEFAULTS}
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "strict-transport-security" not in answer.headers


@pytest.mark.parametrize(
    ("trusted", "secure"),
    [((), False), (("192.0.2.7",), True), (("192.0.2.0/24",), True), (("198.51.100.1",), False)],
)
def test_tls_is_what_a_trusted_proxy_says(
    run_service: Any, trusted: tuple[str, ...], secure: bool
) -> None:
    with run_service(trusted_proxies=trusted) as running:
        client = TestClient(
            create_app(running.service),
            base_url="http://127.0.0.1:8321",
            client=("192.0.2.7", 1000),
        )
        forwarded = {"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.5"}
        answer = client.get("/healthz", headers=forwarded)
        assert ("strict-transport-security" in answer.headers) is secure
        plain = client.get("/healthz", headers={"x-forwarded-proto": "http"})
        assert "strict-transport-security" not in plain.headers


def test_settings_name_networks(make_settings: Any) -> None:
    assert make_settings(trusted_proxies=("10.0.0.0/8", "::1"))
    with pytest.raises(ValueError, match="neither an IP address nor a network"):
        make_settings(trusted_proxies=("proxy.example",))
