"""Every request that changes something is in the audit log, or is listed here with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy.exc import OperationalError

from driftscope_service.auth import audit
from driftscope_service.auth.audit import Action, AuditLog
from driftscope_service.auth.key import KeyText, Scope
from driftscope_service.schedule.scheduler import Scheduler

from .keys_of import add_key, bearer
from .test_bound_keys import routes

READING: Final = {"GET", "HEAD", "OPTIONS"}
AUDITED: Final = {
    ("DELETE", "/v1/runs/{run}"): Action.RUN_DELETED,
    ("POST", "/runs/{run}/delete"): Action.RUN_DELETED,
    ("DELETE", "/v1/runs/{run}/steps/{step}"): Action.STEP_DELETED,
    ("POST", "/runs/{run}/steps/{step}/delete"): Action.STEP_DELETED,
    ("DELETE", "/v1/reports/{report_id}"): Action.REPORT_DELETED,
    ("POST", "/probes/{report_id}/delete"): Action.REPORT_DELETED,
    ("DELETE", "/v1/jobs/{job_id}"): Action.JOB_DELETED,
    ("POST", "/jobs/{job_id}/delete"): Action.JOB_DELETED,
    ("POST", "/v1/jobs/{job_id}/cancel"): Action.JOB_CANCELLED,
    ("POST", "/jobs/{job_id}/cancel"): Action.JOB_CANCELLED,
    **{
        ("POST", f"/v1/probes/{kind}"): Action.JOB_STARTED
        for kind in (
            "paired",
            "kernels",
            "determinism",
            "floor",
            "diagnose",
            "explain",
            "matrix",
            "nightly",
        )
    },
    ("POST", "/probes/new/{kind_name}"): Action.JOB_STARTED,
    ("PUT", "/v1/schedules/{name}"): Action.SCHEDULE_CHANGED,
    ("DELETE", "/v1/schedules/{name}"): Action.SCHEDULE_DELETED,
    ("POST", "/login"): Action.LOGGED_IN,
}
_PUSH: Final = "a push: what a trainer sends is data, and shown as such with its time"
_MARK: Final = "a mark of a run is changed back with a click, and shown on its page"
NOT_AUDITED: Final = {
    ("PUT", "/v1/runs/{run}"): _PUSH,
    ("POST", "/v1/runs/{run}/attempts"): _PUSH,
    ("POST", "/v1/runs/{run}/steps/{step}/logprobs"): _PUSH,
    ("POST", "/v1/runs/{run}/steps/{step}/complete"): _PUSH,
    ("POST", "/v1/reports"): "a push: the report says where it was made",
    ("POST", "/v1/nightly"): "a push: the night says where it ran",
    ("POST", "/runs/{run}/marks"): _MARK,
    ("POST", "/runs/{run}/pin"): _MARK,
    ("POST", "/v1/lint"): "it keeps nothing",
    ("POST", "/lint"): "it keeps nothing",
    ("POST", "/probes/new/{kind_name}/check"): "it keeps nothing",
    ("POST", "/logout"): "it takes away what the login gave, from nobody else",
}


def entries(running: Any) -> list[dict[str, Any]]:
    """Newest first."""
    found: list[dict[str, Any]] = running.client.get("/v1/audit?limit=100").json()["entries"]
    return found


def test_every_changing_route_is_listed_once(running: Any) -> None:
    changing = {route for route in routes(running.client.app) if route[0] not in READING}
    assert changing == AUDITED.keys() | NOT_AUDITED.keys()
    assert not AUDITED.keys() & NOT_AUDITED.keys()


@pytest.fixture
def keyed(run_service: Any) -> Iterator[tuple[Any, KeyText]]:
    with run_service(require_keys=True) as running:
        key = add_key(running.service.database, Scope.ADMIN)
        running.client.headers.update(bearer(key))
        running.client.follow_redirects = False
        yield running, key


class Doing:
    """Does each of AUDITED once, and notes which entry it left."""

    def __init__(self, running: Any, key: KeyText) -> None:
        self.running, self.key = running, key
        self.done: set[tuple[str, str]] = set()

    def do(self, method: str, route: str, target: str, **named: Any) -> Any:
        body = named.pop("send", {})
        before = len(entries(self.running))
        path = route.format(**named)
        answer = self.running.client.request(method, path, **body)
        assert answer.status_code < 400, (method, path, answer.text)
        found = entries(self.running)
        assert len(found) == before + 1, (method, path, found)
        entry = found[0]
        assert entry["action"] == AUDITED[method, route]
        assert entry["target"].startswith(target), entry
        assert (entry["actor"], entry["key_id"]) == ("key", self.key.id)
        assert entry["request_id"] == answer.headers["x-request-id"]
        self.done.add((method, route))
        return answer


PAIRED: Final = {
    "model": "tiny-random-llama",
    "prompts": ["sleep"],
    "engine_dtypes": ["bf16"],
    "trainer_dtypes": ["bf16"],
}
KERNELS: Final = {"targets": ["torch"], "ops": ["linear"], "dtypes": ["fp32"], "threads": [1]}
REQUESTS: Final = {
    "paired": PAIRED,
    "kernels": KERNELS,
    "determinism": {"model": "tiny-random-llama", "axes": ["batch_size"]},
    "floor": {"model": "tiny-random-llama"},
    "diagnose": {"model": "tiny-random-llama"},
    "explain": {"model": "tiny-random-llama"},
    "matrix": {"model": "tiny-random-llama", "places": ["here", "here"]},
    "nightly": None,
}


def test_each_of_them_adds_its_entry(keyed: tuple[Any, KeyText], pushing_to: Any) -> None:
    running, key = keyed
    doing, client = Doing(running, key), running.client
    pushing = pushing_to(running)
    for step in (1, 2):
        assert pushing.push(pushing.body(seed=step), run="r1", step=step).status_code == 201
    client.put("/v1/runs/r2", json={})
    assert entries(running) == []  # pushes are not in it
    doing.do("DELETE", "/v1/runs/{run}/steps/{step}", "step 1 of run r1", run="r1", step=1)
    assert entries(running)[0]["detail"]["steps"] == 1
    doing.do("POST", "/runs/{run}/steps/{step}/delete", "step 2 of run r1", run="r1", step=2)
    doing.do("DELETE", "/v1/runs/{run}", "run r1", run="r1")
    doing.do("POST", "/runs/{run}/delete", "run r2", run="r2", send={"data": {"name": "r2"}})

    made = running.finished_report()
    report = client.get(f"/v1/reports/{made}").json()
    doing.do("DELETE", "/v1/reports/{report_id}", f"report {made}", report_id=made)
    again = client.post("/v1/reports", json=report).json()["id"]
    doing.do("POST", "/probes/{report_id}/delete", f"report {again}", report_id=again)

    # From here on jobs only wait, so that each can be cancelled.
    running.service.executor.stop()
    jobs = []
    for kind, request in REQUESTS.items():
        send = {} if request is None else {"json": request}
        started = doing.do("POST", f"/v1/probes/{kind}", "job job_", send=send)
        jobs.append(started.json()["id"])
    started = doing.do("POST", "/probes/new/{kind_name}", "job job_", kind_name="nightly")
    jobs.append(started.headers["location"].rsplit("/", 1)[1])
    first, second = jobs[:2]
    doing.do("POST", "/v1/jobs/{job_id}/cancel", f"job {first}", job_id=first)
    doing.do("POST", "/jobs/{job_id}/cancel", f"job {second}", job_id=second)
    before = len(entries(running))
    client.post(f"/v1/jobs/{first}/cancel")  # again: nothing is changed, and nothing said
    assert len(entries(running)) == before
    doing.do("DELETE", "/v1/jobs/{job_id}", f"job {first}", job_id=first)
    doing.do("POST", "/jobs/{job_id}/delete", f"job {second}", job_id=second)

    night = {"cron": "30 3 * * *", "job": {"kind": "nightly"}}
    doing.do("PUT", "/v1/schedules/{name}", "schedule n", name="n", send={"json": night})
    assert entries(running)[0]["detail"]["was"] == "new"
    doing.do("DELETE", "/v1/schedules/{name}", "schedule n", name="n")
    doing.do("POST", "/login", f"key {key.id}", send={"data": {"key": key.token}})
    assert doing.done == AUDITED.keys()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/v1/runs/none"),
        ("DELETE", "/v1/reports/none"),
        ("DELETE", "/v1/jobs/none"),
        ("POST", "/v1/jobs/none/cancel"),
        ("DELETE", "/v1/schedules/none"),
    ],
)
def test_what_did_nothing_leaves_nothing(running: Any, method: str, path: str) -> None:
    assert running.client.request(method, path).status_code == 404
    assert entries(running) == []


def test_neither_is_there_without_the_other(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry fails to be written: the run stays."""
    running.client.put("/v1/runs/kept", json={})

    def fail(*_given: Any, **_more: Any) -> None:
        raise OperationalError("", {}, Exception("disk full"))

    monkeypatch.setattr(audit.AuditLog, "add", fail)
    assert running.client.delete("/v1/runs/kept").status_code == 503
    monkeypatch.undo()
    assert running.client.get("/v1/runs/kept").status_code == 200
    assert entries(running) == []


def test_a_job_of_a_schedule_is_the_services(running: Any) -> None:
    running.client.put("/v1/schedules/n", json={"cron": "30 3 * * *", "job": {"kind": "nightly"}})
    scheduler: Scheduler = running.service.scheduler
    assert scheduler.tick(datetime.now(UTC) + timedelta(days=1, minutes=1)) == 1
    entry = entries(running)[0]
    assert (entry["action"], entry["actor"]) == ("job.started", "service")
    assert entry["detail"]["schedule"] == "n" and entry["request_id"] is None


def test_without_keys_it_was_anyone(running: Any) -> None:
    running.client.put("/v1/runs/r", json={})
    running.client.delete("/v1/runs/r")
    entry = entries(running)[0]
    assert (entry["actor"], entry["key_id"]) == ("anyone", None)


def test_pages_and_api_turn_from_the_newest_to_the_oldest(running: Any) -> None:
    with running.service.database.write() as connection:
        for number in range(60):
            AuditLog(connection).add(audit.SERVICE, Action.JOB_DELETED, f"job <{number}>")
    seen, cursor = [], None
    while True:
        query = {"limit": 25} | ({} if cursor is None else {"cursor": cursor})
        body = running.client.get("/v1/audit", params=query).json()
        seen += [entry["target"] for entry in body["entries"]]
        cursor = body["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"job <{number}>" for number in reversed(range(60))]
    shown = running.client.get("/audit")
    assert shown.status_code == 200 and "job &lt;59&gt;" in shown.text
    assert "Earlier entries" in shown.text and "job &lt;9&gt;" not in shown.text
    assert running.client.get("/v1/audit?cursor=x").status_code == 422


def test_an_empty_log_says_what_it_would_hold(running: Any) -> None:
    assert "Nothing has been done yet" in running.client.get("/audit").text


@pytest.mark.parametrize("scope", [scope for scope in Scope if scope is not Scope.ADMIN])
def test_only_an_administrator_reads_it(run_service: Any, scope: Scope) -> None:
    with run_service(require_keys=True) as running:
        headers = bearer(add_key(running.service.database, scope))
        for path in ("/v1/audit", "/audit"):
            assert running.client.get(path, headers=headers).status_code == 403
