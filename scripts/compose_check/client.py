"""Requests to the running stack, as a trainer, a person and a dashboard make them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from scripts.compose_check.stack import Access

Answer = TypeVar("Answer")
RUN = "compose-check"
#: The first push compiles the analysis: seconds, and minutes on cores that others use too.
REQUEST_SECONDS = 300.0
#: Sure rollout (p > 1/2), trainer at e⁻² of it and less: one confident disagreement a step.
ROLLOUT = [[-0.1, -0.4, -1.1], [-0.02, -0.7]]
TRAINER = [[-3.1, -0.41, -1.1], [-0.021, -0.69]]
#: The alert RunConfidentDisagreements waits one minute; scrape, rules and group_wait add one more.
ALERT = "RunConfidentDisagreements"
SERIES = "driftscope_run_confident_disagreement_tokens"


class Unexpected(RuntimeError):
    """An answer of the stack that is not what it promises."""


@dataclass(frozen=True)
class Client:
    access: Access

    def _service(self, method: str, path: str, **given: Any) -> httpx.Response:
        try:
            answer = httpx.request(
                method, self.access.service + path, timeout=REQUEST_SECONDS,
                headers={"Authorization": f"Bearer {self.access.key}"}, **given,
            )  # fmt: skip
        except httpx.TransportError as error:
            raise Unexpected(f"{method} {path}: {error!r}") from error
        if answer.is_error:
            raise Unexpected(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer

    def push(self, step: int) -> None:
        body = {
            "metadata": {"schema_version": "1", "rollout_dtype": "bf16", "trainer_dtype": "bf16"},
            "rollout_logprobs": ROLLOUT,
            "trainer_logprobs": TRAINER,
        }
        self._service("POST", f"/v1/runs/{RUN}/steps/{step}/logprobs", json=body)

    def steps(self) -> dict[int, str]:
        """Step → its whole analysis, as text: what must be the same after a crash."""
        listed = self._service("GET", f"/v1/runs/{RUN}/steps").json()
        numbers = [int(entry["step"]) for entry in listed["steps"]]
        return {
            number: self._service("GET", f"/v1/runs/{RUN}/steps/{number}").text
            for number in numbers
        }

    def start_probe(self, body: dict[str, Any]) -> str:
        return str(self._service("POST", "/v1/probes/paired", json=body).headers["Location"])

    def job(self, path: str) -> dict[str, Any]:
        found = self._service("GET", path).json()
        assert isinstance(found, dict)
        return found

    def reports(self) -> dict[str, str]:
        """Address of each report → the whole of it."""
        listed = self._service("GET", "/v1/reports").json()["reports"]
        paths = [str(entry["links"]["self"]) for entry in listed]
        return {path: self._service("GET", path).text for path in paths}

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """Prometheus' answer now, or at a time of the past."""
        asked = {"query": expression} | ({} if at is None else {"time": str(at)})
        answer = httpx.get(
            f"{self.access.prometheus}/api/v1/query", params=asked, timeout=REQUEST_SECONDS
        )
        if answer.is_error:
            raise Unexpected(f"Prometheus: {answer.status_code} {answer.text[:500]}")
        result = answer.json()["data"]["result"]
        assert isinstance(result, list)
        return result

    def alerts(self) -> set[str]:
        """Names of what Alertmanager holds as active."""
        answer = httpx.get(
            f"{self.access.alertmanager}/api/v2/alerts", timeout=REQUEST_SECONDS
        ).raise_for_status()
        return {entry["labels"]["alertname"] for entry in answer.json()}


def wait_for(what: str, seconds: float, look: Callable[[], Answer | None]) -> Answer:
    """The first true answer of `look`; connections that are refused meanwhile are no answer."""
    began, last = time.monotonic(), "nothing"
    while time.monotonic() - began < seconds:
        try:
            found = look()
        except (httpx.TransportError, httpx.HTTPStatusError, Unexpected) as error:
            last = str(error)
        else:
            if found:
                return found
            last = repr(found)
        time.sleep(1.0)
    raise Unexpected(f"{what}: not within {seconds:.0f} s; the last answer was {last[:500]}")
